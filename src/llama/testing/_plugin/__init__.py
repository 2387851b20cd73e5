"""What the fixtures of the pytest plugin are made of; loaded when one is used."""
