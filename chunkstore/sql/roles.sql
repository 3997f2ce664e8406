-- name: begin
-- One change of rights of a store at a time; it gives way to whoever works rather than make them wait.
SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.roles', 0)),
       set_config('lock_timeout', '200ms', true);

-- name: missing
-- Those of these roles that the cluster lacks.
SELECT n.name
FROM unnest(%(roles)s::text[]) AS n (name)
WHERE NOT EXISTS (
    SELECT FROM pg_roles r
    WHERE r.rolname = n.name
)
ORDER BY n.name;

-- name: create_role
CREATE ROLE {role} NOLOGIN;

-- name: record
-- Makes a role one of the store's.
INSERT INTO roles (role, kind)
VALUES (%(role)s, %(kind)s)
ON CONFLICT (role) DO UPDATE
SET kind = excluded.kind;

-- name: forget_others
-- The store's roles are these alone.
SELECT forget_roles(%(roles)s::text[]);

-- name: apply
-- Makes all rights what the table `rights` says.
SELECT apply_rights();

-- name: has_roles
-- Whether roles were made for this store.
SELECT EXISTS (SELECT FROM roles);

-- name: set_tenant
-- Gives a collection to a tenant's role, or to none.
SELECT set_tenant(%(collection)s, %(tenant)s);
