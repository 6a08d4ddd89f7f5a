# The verbs of this project. CI calls the same ones.
PYTHON ?= python3
BIN := .venv/bin
SYSTEM_PACKAGES := pushpin zurl condure chromium chromium-driver nginx-light \
	postgresql mariadb-server libmariadb-dev pkg-config gcc

.PHONY: help demo test test-beside test-suite test-postgresql test-mariadb matrix lint format system clean

help:
	@echo "make demo     an auction on http://localhost:7999, through the local proxy"
	@echo "make test     the whole suite"
	@echo "make matrix   the suite on every supported Python and Django (tox)"
	@echo "make lint     ruff, mypy --strict, import directions"
	@echo "make format   ruff format and its safe fixes"
	@echo "make system   Pushpin, Chromium, nginx, PostgreSQL, MariaDB, Node from Debian's packages"

# Made again whenever the metadata changes; else a second run starts at once.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: .venv/installed
	@$(BIN)/python sample_app/demo.py

# Databases, a browser and Pushpin mostly wait: they do so beside the rest.
test: .venv/installed
	$(MAKE) --jobs=2 --output-sync=target test-beside test-suite

test-beside:
	$(MAKE) test-postgresql
	$(MAKE) test-mariadb
	$(BIN)/python -m pytest -m "chromium or pushpin"

test-suite: .venv/installed
	$(BIN)/python -m pytest -m "not chromium and not pushpin"

test-postgresql: .venv/installed
	$(BIN)/python tests/databases.py postgresql $(BIN)/python -m pytest -m django_db \
		tests/contrib/realtime tests/contrib/eventlog tests/test_bidding.py

test-mariadb: .venv/installed
	$(BIN)/python tests/databases.py mariadb $(BIN)/python -m pytest -m django_db tests/contrib/eventlog

matrix: .venv/installed
	$(BIN)/tox run-parallel --parallel-no-spinner

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=sample_app $(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

system:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(SYSTEM_PACKAGES)
	# Debian's does not go beside one from elsewhere.
	command -v npm >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs npm

clean:
	rm -rf .venv .tox .demo build dist *.egg-info
