#!/bin/sh
# Make the database password of docker-compose.yml once, in the directory given as the argument:
#   postgres-password   for the Postgres image (POSTGRES_PASSWORD_FILE), read by its root only
#   pgpass              for the gateways (PGPASSFILE); asyncpg ignores it unless it is private to
#                       the user that reads it, who is RUNCAST_UID (10001, as in the Dockerfile)
# A second run keeps the password, because the database keeps it too.
set -eu
umask 077
directory=$1
password_file=$directory/postgres-password

if [ ! -s "$password_file" ]; then
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "$password_file.new"
    mv "$password_file.new" "$password_file"
fi

printf 'postgres:5432:runcast:runcast:%s\n' "$(cat "$password_file")" > "$directory/pgpass.new"
chown "${RUNCAST_UID:-10001}" "$directory/pgpass.new"
mv "$directory/pgpass.new" "$directory/pgpass"
chmod 755 "$directory"
