.DEFAULT_GOAL := help
PY := .venv/bin/python
INSTALLED := .venv/installed

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED) ## install camlab and the pinned packages in .venv (the other targets call this)

$(INSTALLED): pyproject.toml requirements.txt scripts/bootstrap.sh
	@sh scripts/bootstrap.sh

demo: $(INSTALLED) ## train on synthetic shapes and draw heatmaps: 3 minutes on 2 cores, no account needed
	$(PY) -m camlab.train experiment=demo

check: $(INSTALLED) ## check formatting, lint, types and import contracts, and the scripts of the viewer
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	@sh scripts/check_page.sh

format: $(INSTALLED) ## format, and apply the automatic fixes of the linters
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .
	@if [ -d node_modules ]; then npm run --silent format; fi

# Two processes with one thread each. With more threads the processes wait for each other and take ten times as long.
test test-slow: export OMP_NUM_THREADS = 1
PYTEST := $(PY) -m pytest -n 2 --dist worksteal

test: $(INSTALLED) ## run the fast tests
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED) ## run the slow tests: the demo, the wheel, sweeps, kill points, outages
	$(PYTEST) -m "$(or $(MARKED),slow)"

lock: ## pin the requirements again (needs uv); UPGRADE=1 takes newer versions
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet $(if $(UPGRADE),--upgrade) --output-file requirements.txt

clean: ## remove caches and build results, but not .venv, data or outputs
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help install demo check format test test-slow lock clean
