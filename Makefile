# Fieldsync. Every target sets up what it needs in .venv; `make` alone lists them.
#
#   make demo ONCE=1            the demo, ending when the tablets are done
#   make serve ARGS='--port 9000'
#   make test ARGS='tests/api -k jobs'

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The first of these that runs, is new enough and can make a virtual environment. That a command is found
# does not mean that it runs: version managers leave shims of interpreters that are not selected. The
# system's own comes first, because distributions build it with profile-guided optimisation and
# interpreters built from source usually are without: the same server is slower on them.
PYTHON ?= $(shell for python in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo "$$python"; break; }; done)

DATA ?= data
# One process each for SQLite and PostgreSQL work; more would need more memory than a small machine has.
WORKERS ?= 2
ARGS ?=

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.installed .pango .designer ## Three tablets against a fresh server on port 8000 (ONCE=1: exit afterwards).
	@$(BIN)/fieldsync demo $(if $(filter 1,$(ONCE)),--once) $(ARGS)

.PHONY: serve
serve: $(VENV)/.installed .pango .designer ## Serve the data in the folder `data` (DATA=folder) on port 8000.
	@if [ -z "$${FIELDSYNC_DATABASE_URL:-}" ] && [ ! -e "$(DATA)/fieldsync.db" ]; then \
		echo "There is no team yet. In another terminal, or before the next start:"; \
		echo "  $(BIN)/fieldsync init --team 'My team' --owner you@example.com --data $(DATA)"; \
	fi
	@$(BIN)/fieldsync serve --data "$(DATA)" $(ARGS)

.PHONY: test
test: $(VENV)/.installed-dev .pango .poppler .chromium .designer ## Run the tests, on SQLite and PostgreSQL (ARGS: for pytest; WORKERS=2).
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

.PHONY: check
check: $(VENV)/.installed-dev ## Format, lint, types, direction of imports.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: faults
faults: $(VENV)/.installed-dev ## Only the tests that kill, starve and disconnect real servers.
	@$(BIN)/python -m pytest tests/faults $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.installed-dev ## Break the rules of the merge one by one; the tests must notice (minutes).
	@$(BIN)/python -m tests.mutants.mutants $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed-dev .wrk ## Pushes per second and their latency.
	@$(BIN)/python -m benchmarks.bench_sync $(ARGS)

.PHONY: bench-large
bench-large: $(VENV)/.installed-dev .wrk ## The same with a large history in the database.
	@$(BIN)/python -m benchmarks.bench_large $(ARGS)

.PHONY: bench-files
bench-files: $(VENV)/.installed-dev .wrk ## Files: memory of large ones, small ones per second, a large ZIP.
	@$(BIN)/python -m benchmarks.bench_files $(ARGS)

.PHONY: bench-images
bench-images: $(VENV)/.installed-dev ## Thumbnails beside sharp's (npm), time and memory.
	@$(BIN)/python -m benchmarks.bench_images $(ARGS)

.PHONY: bench-resources
bench-resources: $(VENV)/.installed-dev ## Lists of workflows and scheduled jobs; a collection of a million records.
	@$(BIN)/python -m benchmarks.bench_resources $(ARGS)
	@$(BIN)/python -m benchmarks.bench_collections

.PHONY: bench-query
bench-query: $(VENV)/.installed-dev ## First pages and all pages of a million completed jobs.
	@$(BIN)/python -m benchmarks.bench_query $(ARGS)

.PHONY: bench-query-page
bench-query-page: $(VENV)/.installed-dev ## A page of a hundred jobs over HTTP, as JSON and as CSV.
	@$(BIN)/python -m benchmarks.bench_query_page $(ARGS)

.PHONY: bench-refusals
bench-refusals: $(VENV)/.installed-dev ## Queries that are meant to take long: how soon they are refused.
	@$(BIN)/python -m benchmarks.bench_refusals $(ARGS)

.PHONY: bench-webhooks
bench-webhooks: $(VENV)/.installed-dev ## Webhooks per minute of one worker, with and without endpoints that hang.
	@$(BIN)/python -m benchmarks.bench_webhooks $(ARGS)

.PHONY: bench-reports
bench-reports: $(VENV)/.installed-dev .pango .wrk ## A report of 30 photos; what pushes feel of a busy printer.
	@$(BIN)/python -m benchmarks.bench_reports $(ARGS)

.PHONY: bench-tasks
bench-tasks: $(VENV)/.installed-dev ## Empty tasks per second of one worker, on SQLite and PostgreSQL.
	@$(BIN)/python -m benchmarks.bench_tasks $(ARGS)

.PHONY: clean
clean: ## Remove caches, build results and the demo's data. Keeps `data` and .venv.
	@rm -rf build dist demo-data *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf

# The pages are tested in a real browser. Without one those tests are passed over, and say so.
.PHONY: .chromium
.chromium:
	@command -v chromium >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing chromium, for the tests of pages."; \
			apt-get update -qq && apt-get install -y -qq chromium >/dev/null || true; \
		else \
			echo "No chromium: the tests of pages will be skipped (Debian: sudo apt-get install chromium)." >&2; \
		fi; }

# What lays out the text of PDF reports. Without it everything else works, and `fieldsync doctor` says so.
PANGO := libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core
.PHONY: .pango
.pango:
	@$(BIN)/python -c 'import weasyprint' >/dev/null 2>&1 || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing Pango, for PDF reports."; \
			apt-get update -qq && apt-get install -y -qq $(PANGO) >/dev/null || true; \
		else \
			echo "No Pango: reports cannot be made (Debian: sudo apt-get install $(PANGO))." >&2; \
		fi; }

# The page on which people write queries, built from designer/ when that is newer. Without Node.js the server shows
# a plain form in its place, and says so.
NODE := node
DESIGNER := $(wildcard designer/src/*) $(wildcard designer/*.json) designer/.npmrc designer/index.html designer/vite.config.ts
.PHONY: .designer
.designer:
	@if [ -e server/query/static/index.html ] && \
		[ -z "$$(find $(DESIGNER) -newer server/query/static/index.html -print -quit)" ]; then exit 0; fi; \
	if ! command -v npm >/dev/null || ! $(NODE) -e \
		'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 12) || (a == 20 && b >= 19) ? 0 : 1)' \
		2>/dev/null; then \
		echo "No Node.js (20.19, or 22.12 and later) with npm: the query designer is not built; /query is a plain form, or an older build." >&2; exit 0; \
	fi; \
	echo "Building the query designer; the first time takes a minute."; \
	(cd designer && npm ci --silent --fetch-retries 1 && npm run --silent build -- --logLevel error) || \
		echo "The query designer could not be built; /query is a plain form, or an older build." >&2

# Pages of reports are compared as pictures. Without it those tests are passed over, and say so.
.PHONY: .poppler
.poppler:
	@command -v pdftoppm >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing poppler-utils, for the tests of reports."; \
			apt-get update -qq && apt-get install -y -qq poppler-utils >/dev/null || true; \
		else \
			echo "No pdftoppm: pages of reports will not be looked at (Debian: sudo apt-get install poppler-utils)." >&2; \
		fi; }

# The load generator is a program of its own.
.PHONY: .wrk
.wrk:
	@command -v wrk >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing wrk."; \
			apt-get update -qq && apt-get install -y -qq wrk >/dev/null; \
		else \
			echo "The benchmark needs wrk. Install it (Debian: sudo apt-get install wrk) and run this again." >&2; \
			exit 1; \
		fi; }

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { \
		echo "No Python from 3.11 with venv was found. Debian, Ubuntu: sudo apt-get install python3 python3-venv." >&2; \
		echo "Elsewhere: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version)."
	@"$(PYTHON)" -m venv --clear $(VENV)

$(VENV)/.installed: pyproject.toml $(BIN)/python
	@echo "Installing Fieldsync into $(VENV); the first time takes a minute."
	@$(PIP) install -q -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(BIN)/python
	@echo "Installing Fieldsync and its development tools into $(VENV); the first time takes a minute."
	@$(PIP) install -q -e '.[dev]'
	@touch $(VENV)/.installed $@
