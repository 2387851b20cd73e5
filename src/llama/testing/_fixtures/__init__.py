"""The implementation of the pytest plugin's fixtures; imported when a fixture is used."""
