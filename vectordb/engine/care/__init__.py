"""What keeps a folder sound, and what those who run a database ask of it: checks, repairs, backups, erasure."""
