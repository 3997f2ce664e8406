"""The command that lists models: which can be opened here, and what the others need."""

from typing import TYPE_CHECKING

from chunkstore.cli.app import SET_UP, command
from chunkstore.cli.options import Json
from chunkstore.cli.output import print_json, print_line, print_table, say

if TYPE_CHECKING:
    from chunkstore.models.kinds import BackEnd


@command(group=SET_UP, sort_key=4)
async def models(*, json: Json = False) -> None:
    """List the models that can be named with `--model`, which of them run here, and what the others need.

    Where two things can run a model, the first that is installed does; both give the same vectors. Nothing
    is loaded, and no store is needed. A model of your own is any Python object with a name, dimensions, a
    distance and `embed`.

    For example:

        chunkstore models
        chunkstore collection create notes --model sentence-transformers:./my-model
        chunkstore collection create notes --model openai:text-embedding-3-small
    """
    from chunkstore.cli.shapes import ListedModel
    from chunkstore.models.kinds import KINDS

    if json:
        print_json([ListedModel.of(kind) for kind in KINDS])
        return
    for kind in KINDS:
        print_line(f"{kind.spec}  {kind.what}")
    print_line()
    print_table(
        ("model", "runs", "here", "needs"),
        [(kind.spec, end.runs, _here(end), _needs(end)) for kind in KINDS for end in kind.back_ends],
    )
    usable = sum(any(not end.missing for end in kind.back_ends) for kind in KINDS)
    say(f"{usable} of {len(KINDS)} kinds of models run here")


def _here(end: "BackEnd") -> str:
    return "no" if end.missing else "yes"


def _needs(end: "BackEnd") -> str:
    return "; ".join([*([end.install] if end.missing else []), *([end.also] if end.also else [])])
