"""What programs keep on disk: SQLite files, and bytes by their digest."""
