"""The tests use llama's own plugin, installed or not."""

pytest_plugins = ["llama._pytest_plugin"]
