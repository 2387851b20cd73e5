"""Worker processes: the supervisor forks, watches and replaces them."""
