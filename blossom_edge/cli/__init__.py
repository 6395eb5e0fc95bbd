"""The program `blossom-edge`: one file per command group, loaded when its command is called and not before."""
