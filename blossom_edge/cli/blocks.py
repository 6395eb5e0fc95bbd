"""`blossom-edge blocks`: which versions of the model this device runs, and the person's say in it."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blossom_edge.cli.options import data_dir_option, edge_folder
from blossom_edge.cli.status import id_option, read_status
from blossom_edge.console.output import Output, format_bytes
from blossom_edge.console.program import LazyGroup, command
from blossom_edge.core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from blossom_edge.core.blocks import BlockKey
    from blossom_edge.federation.schema import Federation
    from blossom_edge.inference.model_state import ModelState
    from blossom_edge.inference.orders import Answer, Order

HERE = "blossom_edge.cli.blocks"
WAIT_S = 10.0
POLL_S = 0.05
BY_HAND = "rolled back by hand"

blocks = LazyGroup(
    "blocks",
    help="The model blocks of this device: which versions it runs, and your say in it.",
    targets={
        "list": (f"{HERE}:list_blocks", "Show each block: version in use, before it, newest, refused."),
        "show": (f"{HERE}:show", "Show the tensors of one block."),
        "rollback": (f"{HERE}:rollback", "Go back to the versions before those in use."),
        "pin": (f"{HERE}:pin", "Keep a block at the version in use, whatever comes."),
    },
)
federation_option = click.option(
    "--federation", "federation_name", metavar="NAME", help="Which federation [default: the last joined]."
)


@dataclass(frozen=True, slots=True)
class Place:
    """The device that is meant, and its folder in a federation."""

    status: dict[str, Any]
    folder: Path
    place: Path
    federation: Federation

    @property
    def device(self) -> str:
        """Its id."""
        return str(self.status["device"])

    def state(self) -> ModelState:
        """What its model.json says.

        Raises:
            ConfigError: `usage`: a device that trains has none.
            StorageError: `file-damaged`.
        """
        from blossom_edge.inference.model_folder import look

        found = look(self.place)
        if found is None:
            raise ConfigError(
                "usage",
                f"{self.device} has no model of its own to choose for in federation {self.federation.name}",
                hint="rollback and pin are for devices that join with role infer or personalize",
            )
        return found


@command("list", has_json=True, example="blossom-edge blocks list\nblossom-edge blocks list --id pi-7 --json")
@id_option
@federation_option
@data_dir_option
def list_blocks(out: Output, device: str | None, federation_name: str | None, data_dir: Path | None) -> None:
    """Show the version of each block in use, the one before, the newest received, and what was refused and why.

    Of a device that trains: the versions it holds, and the blocks that stay on it.
    """
    from blossom_edge.inference.model_folder import look, newest_received

    here = _place(edge_folder(data_dir), device, federation_name)
    state = look(here.place)
    found: dict[str, Any] = {"device": here.device, "federation": here.federation.name}
    if state is None:
        held = {str(key): newest_received(here.place, key) for key in _received_keys(here.place)}
        versions = {name: used.version for name, used in held.items() if used is not None}
        private = list(here.status.get("private", ()))
        out.json({**found, "role": "train", "versions": versions, "private": private})
        rows = [(name, version, "shared") for name, version in sorted(versions.items())]
        out.table([*rows, *((name, None, "stays on this device") for name in private)], ["block", "version", "seen by"])
        return
    previous = state.previous.versions if state.previous is not None else {}
    keys = sorted({*state.versions, *previous, *state.pinned, *_received_keys(here.place)})
    rows_json = [_row(here, state, key) for key in keys]
    trial = None if state.trial is None else {"number": state.trial.number, "starts": len(state.trial.boots)}
    out.json({**found, "role": "model", "generation": state.number, "trial": trial, "blocks": rows_json})
    on_trial = ", not proved yet" if trial is not None else ""
    what = f"generation {state.number}{on_trial}" if state.in_use is not None else "no model in use yet"
    out.line(f"{here.device} in federation {here.federation.name}: {what}")
    out.line()
    out.table(
        [(r["block"], r["in_use"], r["previous"], r["newest"], _note(r)) for r in rows_json],
        ["block", "in use", "before", "newest", "note"],
    )
    together: dict[tuple[str, str], list[str]] = {}
    for refused in state.refused:
        together.setdefault((refused.by, refused.reason), []).append(f"{refused.key} {refused.used.version}")
    for (by, reason), names in together.items():
        out.line(f"\nrefused ({by}): {reason}\n  {', '.join(names)}")


@command("show", has_json=True, example="blossom-edge blocks show encoder/accel")
@click.argument("name", metavar="BLOCK")
@id_option
@federation_option
@data_dir_option
def show(out: Output, name: str, device: str | None, federation_name: str | None, data_dir: Path | None) -> None:
    """Show the tensors of the version in use (of a device that trains: of the newest received) in numbers."""
    from blossom_edge.board.clock import local_text
    from blossom_edge.codec.tensors import l2_norm, make_codec
    from blossom_edge.federation.skeletons import has_skeleton, skeleton_digest
    from blossom_edge.inference.model_folder import look, newest_received, read_block

    here = _place(edge_folder(data_dir), device, federation_name)
    state = look(here.place)
    versions = state.versions if state is not None else {}
    key = _key(name, versions or _received_keys(here.place))
    used = versions.get(key) or newest_received(here.place, key)
    if used is None:
        raise StorageError("file-damaged", f"the newest version of {key} cannot be read", hint="start join again")
    received = read_block(here.place, key, used)
    spec = here.federation.spec[key.block]
    tensors = make_codec(here.federation.codec.down).decode(received.data, spec)
    since = state.since.get(key, "") if state is not None else ""
    rows: list[dict[str, Any]] = [
        {
            "name": tensor,
            "shape": list(values.shape),
            "min": float(values.min(initial=float("inf"))),
            "mean": float(values.mean()) if values.size else None,
            "max": float(values.max(initial=float("-inf"))),
            "norm": l2_norm({tensor: values}),
        }
        for tensor, values in tensors.items()
    ]
    found = {
        "block": str(key),
        "type": spec.type,
        "version": used.version,
        "sha256": used.sha256,
        "in_use": key in versions,
        "since_utc": since or None,
        "bytes": len(received.data),
        "num_values": spec.num_values,
        "skeleton": skeleton_digest(here.federation, key.block) if has_skeleton(key.block) else None,
        "tensors": rows,
    }
    out.json(found)
    when = f" since {local_text(since)}" if since else ""
    out.line(f"{key} version {used.version}, {'in use' if found['in_use'] else 'held'}{when}")
    out.line(f"type {spec.type}, {spec.num_values} values in {format_bytes(len(received.data))}")
    out.line(f"sha256   {used.sha256}\nskeleton {found['skeleton'] or 'none: it is no graph'}\n")
    numbers = ("min", "mean", "max", "norm")
    out.table(
        [
            (
                row["name"],
                " x ".join(map(str, row["shape"])),
                *(f"{row[n]:.4g}" if row[n] is not None else None for n in numbers),
            )
            for row in rows
        ],
        ["tensor", "shape", *numbers],
    )


@command("rollback", has_json=True, example="blossom-edge blocks rollback\nblossom-edge blocks rollback encoder/accel")
@click.argument("names", nargs=-1, metavar="[BLOCK]...")
@id_option
@federation_option
@data_dir_option
def rollback(
    out: Output, names: tuple[str, ...], device: str | None, federation_name: str | None, data_dir: Path | None
) -> None:
    """Go back to the versions before those in use, of the named blocks or of all. A running join does it at once.

    What is left is refused from then on; a newer version is taken again. `pin --off BLOCK` lets it be tried again.
    """
    from blossom_edge.inference.orders import Order

    here = _place(edge_folder(data_dir), device, federation_name)
    known = here.state().versions
    keys = tuple(_key(name, known) for name in names)
    _carry_out(out, here, Order("rollback", keys))


@command(
    "pin", has_json=True, example="blossom-edge blocks pin encoder/accel\nblossom-edge blocks pin --off encoder/accel"
)
@click.argument("names", nargs=-1, required=True, metavar="BLOCK...")
@click.option("--off", is_flag=True, help="Let it follow the gateway again, refused versions too.")
@id_option
@federation_option
@data_dir_option
def pin(
    out: Output,
    names: tuple[str, ...],
    off: bool,
    device: str | None,
    federation_name: str | None,
    data_dir: Path | None,
) -> None:
    """Keep blocks at the version in use, whatever the gateway sends. A running join does it at once."""
    from blossom_edge.inference.orders import Order

    here = _place(edge_folder(data_dir), device, federation_name)
    state = here.state()
    known = {*state.versions, *state.pinned, *(r.key for r in state.refused)} if off else state.versions
    keys = tuple(_key(name, known) for name in names)
    _carry_out(out, here, Order("unpin" if off else "pin", keys))


def _carry_out(out: Output, here: Place, order: Order) -> None:
    """Have it done by the process that runs, else do it here; say how it went. Raises what went wrong."""
    from blossom_edge.inference.model_folder import FOLDER, ORDERS
    from blossom_edge.inference.orders import Ask

    answer = _alone(here, order)
    if answer is None:
        ask, until = Ask(here.place / FOLDER / ORDERS, order), time.monotonic() + WAIT_S
        try:
            while (answer := ask.answer()) is None and time.monotonic() < until:
                time.sleep(POLL_S)
                if ask.answer() is None and (answer := _alone(here, order)) is not None:
                    break
        finally:
            ask.withdraw()
    if answer is None:
        raise StorageError(
            "folder-in-use",
            f"the process of {here.device} that runs did not answer in {WAIT_S:.0f} s; nothing was changed",
            hint="see `blossom-edge status`, then try again",
        )
    if not answer.done:
        kind = ConfigError if answer.error_id in ("usage", "nothing-found") else StorageError
        raise kind(answer.error_id, answer.message, hint=answer.hint)
    state = here.state()
    named = order.blocks or tuple(sorted(state.versions))
    now = {str(key): state.versions[key].version for key in named if key in state.versions}
    out.json({"device": here.device, "done": order.word, "generation": state.number, "versions": now})
    words = {"rollback": "back at", "pin": "pinned to", "unpin": "follows the gateway again, now at"}[order.word]
    for block, version in now.items():
        out.line(f"{block}: {words} version {version}")


def _alone(here: Place, order: Order) -> Answer | None:
    """Do it on disk while no process of the device runs; None if one does. An order that fails raises."""
    from blossom_edge.board.clock import utc_stamp
    from blossom_edge.durable import FolderLock
    from blossom_edge.inference.model_folder import ModelFolder
    from blossom_edge.inference.orders import Answer

    try:
        lock = FolderLock.acquire(here.folder, what="blossom-edge blocks")
    except StorageError as error:
        if error.error_id == "folder-in-use":
            return None
        raise
    with lock:
        folder = ModelFolder(here.place)
        state = folder.state
        if order.word == "rollback":
            state = state.roll_back(order.blocks or None, BY_HAND, by="person", stamp=utc_stamp() or "")
        for key in order.blocks if order.word != "rollback" else ():
            state = state.pin(key) if order.word == "pin" else state.unpin(key)
        folder.write(state)
        folder.sweep()
    return Answer(True)


def _place(root: Path, device: str | None, federation_name: str | None) -> Place:
    """The device and federation that are meant.

    Raises:
        ConfigError: `usage`, `nothing-found`.
        StorageError: `nothing-found`.
    """
    from blossom_edge.client.folder import place_of
    from blossom_edge.client.store import known_federation

    status = read_status(root, device, joined=True)
    folder, name = root / "devices" / status["device"], federation_name or status["federation"]
    federation = known_federation(folder, name) if name else None
    if federation is None:
        what = f"federation {name!r}" if name else "a federation"
        raise StorageError("nothing-found", f"{status['device']} has not joined {what}", hint="see blossom-edge status")
    return Place(status, folder, place_of(folder, federation.name, federation.digest), federation)


def _received_keys(place: Path) -> list[BlockKey]:
    from blossom_edge.core.blocks import BlockKey

    found = []
    for path in sorted((place / "blocks").glob("*.safetensors")):
        kind, _, name = path.name.removesuffix(".safetensors").partition(".")
        try:
            found.append(BlockKey.parse(f"{kind}/{name}"))
        except ConfigError:
            continue
    return found


def _key(name: str, known: Collection[BlockKey]) -> BlockKey:
    """The key among `known` of that name: `encoder/accel`, or with its cohort. Raises ConfigError `nothing-found`."""
    found = [key for key in sorted(known) if name in (str(key), str(key.block))]
    if not found:
        shown = ", ".join(map(str, sorted(known))) or "none yet"
        raise ConfigError("nothing-found", f"no block {name!r} is in use here", hint=f"there is {shown}")
    return found[0]


def _row(here: Place, state: ModelState, key: BlockKey) -> dict[str, Any]:
    from blossom_edge.inference.model_folder import newest_received

    previous = state.previous.versions.get(key) if state.previous is not None else None
    used, newest, pinned = state.versions.get(key), newest_received(here.place, key), state.pinned.get(key)
    refused = [{"version": r.used.version, "reason": r.reason, "by": r.by} for r in state.refused if r.key == key]
    return {
        "block": str(key),
        "in_use": used.version if used is not None else None,
        "previous": previous.version if previous is not None else None,
        "newest": newest.version if newest is not None else None,
        "pinned": pinned.version if pinned is not None else None,
        "refused": refused,
        "since_utc": state.since.get(key) or None,
    }


def _note(row: dict[str, Any]) -> str:
    words = ["pinned"] if row["pinned"] is not None else []
    words += [f"{r['version']} refused" for r in row["refused"]]
    return ", ".join(words)
