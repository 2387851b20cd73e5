# Each task is one line over dev.py, which works the same without make: python dev.py run
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do $$p -c "" 2>/dev/null && echo $$p && break; done)

run test soak check lint format names bench:
	@$(or $(PYTHON),$(error no Python found: install Python 3.11 or later)) dev.py $@ $(ARGS)

.DEFAULT_GOAL := run
.PHONY: run test soak check lint format names bench
