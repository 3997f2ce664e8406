"""Commands that say who may do what: the store's roles, a collection's tenant."""

from typing import Annotated

from cyclopts import Parameter

from chunkstore.cli.app import SET_UP, command
from chunkstore.cli.options import HERE, Json, Where
from chunkstore.cli.output import print_json, print_table, say


@command(group=SET_UP, sort_key=5)
async def roles(
    *,
    prefix: Annotated[
        str | None, Parameter(help="What the roles' names begin with; the schema's name unless given.")
    ] = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Make a database role for each kind of process, with the rights that it needs and no more.

    They are chunkstore_reader, _writer, _consumer, _projector and _collector; grant them to the users that
    processes log in as. Run by the store's owner, who needs CREATEROLE where a role is missing. Safe to run
    again: rights that were given or taken by hand become what they should be.

    For example:

        chunkstore roles
        chunkstore roles --schema team_a
    """
    from chunkstore.roles import make_roles

    async with where.store() as store:
        made = await make_roles(store.database, prefix=prefix)
    if json:
        print_json(made)
    else:
        print_table(("role", "for", "made now"), [(one.role, one.kind, one.created) for one in made])


@command(group=SET_UP, sort_key=6)
async def tenant(
    collection: Annotated[str, Parameter(help="The collection.")],
    role: Annotated[
        str | None, Parameter(help="The role whose members alone see it; nobody but the owner unless given.")
    ] = None,
    /,
    *,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Give a collection to a tenant: from then on only members of that role see it.

    The first such command keeps all collections of the store apart; those without a tenant are then the
    owner's alone. Consumers, projectors and collectors go on working for all of them.

    For example:

        chunkstore tenant notes acme
    """
    from chunkstore.cli.shapes import Owned
    from chunkstore.roles import set_tenant

    async with where.store() as store:
        await set_tenant(store.database, collection, role)
    if json:
        print_json(Owned(collection, role))
    else:
        say(f"the collection {collection!r} belongs to {'nobody but the owner' if role is None else role}")
