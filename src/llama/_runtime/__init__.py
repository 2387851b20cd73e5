"""Running servers as a process: signals, reloads, systemd, worker processes."""
