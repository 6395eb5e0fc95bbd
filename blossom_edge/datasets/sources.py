"""Where the known data sets come from, what they weigh and under which terms. Text alone: nothing is fetched here."""

from __future__ import annotations

from dataclasses import dataclass

_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """One data set.

    size: bytes of the archive, exact with a checksum and else about; unpacked: bytes that unpacking may write at most;
    sha256: of the archive, "" where not known; vouched: who says so; inner: archives in the archive, by the end of
    their names; steps: what a person does instead (then there is no `url`), or afterwards.
    """

    name: str
    title: str
    homepage: str
    licence: str
    url: str = ""
    size: int = 0
    unpacked: int = 0
    sha256: str = ""
    vouched: str = ""
    inner: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        """`.zip` or `.tar.gz`: what kind of archive it is."""
        return ".tar.gz" if self.url.endswith((".tar.gz", ".tgz")) else ".zip"


_TEXT_STEP = "make text_features.npz with a language model, as docs/datasets.md says, and put it there"

SOURCES = {
    source.name: source
    for source in (
        Source(
            "ucihar",
            "UCI HAR: 30 people, six activities, smartphone at the waist",
            "https://archive.ics.uci.edu/dataset/240",
            "CC BY 4.0 at UCI; the README in it allows no commercial use; cite Anguita et al. 2013",
            url="https://archive.ics.uci.edu/static/public/240/human+activity+recognition+using+smartphones.zip",
            size=61 * _MB,
            unpacked=1_000 * _MB,
            sha256="c00b803081a5c797cd5e4b83700a9810b38d53d9d84e01917e090e1fdbc81031",
            vouched="two projects that fetched it",
            inner=("UCI HAR Dataset.zip",),
        ),
        Source(
            "kuhar",
            "KU-HAR: 90 people, 18 activities, smartphone at the waist",
            "https://data.mendeley.com/datasets/45f952y38r/5",
            "CC BY 4.0; cite Sikder and Nahid 2021",
            url="https://data.mendeley.com/public-files/datasets/45f952y38r/files/"
            "49c6120b-59fd-466c-97da-35d53a4be595/file_downloaded",
            size=161_492_605,
            unpacked=2_000 * _MB,
            sha256="9fe5d0052f2f1d6711afac42ee4badd968116afa8ba4b8ba591f4fdd771c2ec2",
            vouched="one project that fetched it",
        ),
        Source(
            "ptbxl",
            "PTB-XL 1.0.3: 21,799 ECGs of 12 leads, five superclasses",
            "https://physionet.org/content/ptb-xl/1.0.3/",
            "CC BY 4.0; cite Wagner et al. 2020",
            url="https://physionet.org/static/published-projects/ptb-xl/"
            "ptb-xl-a-large-publicly-available-electrocardiography-dataset-1.0.3.zip",
            size=1_800 * _MB,
            unpacked=6_000 * _MB,
            steps=("pip install 'blossom-edge[ptbxl]', which reads the recordings",),
        ),
        Source(
            "avmnist",
            "AV-MNIST: written and spoken digits, paired",
            "https://github.com/pliang279/MultiBench",
            "none stated with the arrays; from MNIST and FSDD",
            size=0,
            steps=(
                "open https://github.com/pliang279/MultiBench and follow its link to the folder avmnist (Google Drive)",
                "unpack it so that FOLDER/avmnist has image/, audio/, train_labels.npy and test_labels.npy",
            ),
        ),
        Source(
            "meld",
            "MELD: 13,000 utterances of a television series, sound and text",
            "https://affective-meld.github.io",
            "GPL-3.0; sound and pictures are of a television series: research only; cite Poria et al. 2019",
            url="https://huggingface.co/datasets/declare-lab/MELD/resolve/main/MELD.Raw.tar.gz",
            size=10_878_146_150,
            unpacked=40_000 * _MB,
            sha256="a56b4407d574195cbce470d86f9c9d72fcfea59b0e34502ecd4babee4a5c613e",
            vouched="the authors",
            inner=("train.tar.gz", "dev.tar.gz", "test.tar.gz"),
            steps=("make sound files of the videos with ffmpeg, as docs/datasets.md says", _TEXT_STEP),
        ),
        Source(
            "iemocap",
            "IEMOCAP: ten actors, five sessions, sound and text",
            "https://sail.usc.edu/iemocap/",
            "for those who signed the release form of the University of Southern California",
            steps=(
                "fill in the form at https://sail.usc.edu/iemocap/iemocap_release.htm and wait for the answer",
                "unpack what you are given so that FOLDER/iemocap has Session1 to Session5",
                _TEXT_STEP,
            ),
        ),
    )
}
"""By name, as `read_dataset` and `data fetch` take it."""
