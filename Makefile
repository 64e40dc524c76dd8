# Needs python3 >= 3.11 and make. Every target creates .venv if there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Three on two cores, as tests also wait for processes and services. What a file shares is made once: one worker runs it.
WORKERS := -n 3 --dist loadfile --no-loadscope-reorder

# What is compiled is kept, whatever the shell says: the tests take each process of theirs seven seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test long check coverage conformance clients matrix oldest newest reference simulations bench format manifests bundle release-check validate pictures constraints clean

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP)  ## watch a whole batch conversation in the sandbox: no key, no cost
	$(BIN)/gemini-batch-mcp demo

test: $(STAMP) tests/js/node_modules  ## run the tests
	$(BIN)/python -m pytest -q $(WORKERS)

long: $(STAMP) tests/js/node_modules  ## run the tests that take seconds each and that make test leaves out
	MATRIX=long $(BIN)/python -m pytest -q $(WORKERS) -m long

check: $(STAMP) tests/js/node_modules  ## format, lint, types, manifests, and the tests of make test and make long
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python manifests/generate.py --check
	MATRIX=long $(BIN)/python -m pytest -q $(WORKERS)

coverage: $(STAMP) tests/js/node_modules  ## the same tests, measured: at least 95 % of the lines and branches; takes half as long again
	MATRIX=long $(BIN)/python -m pytest -q $(WORKERS) --cov --cov-report=term:skip-covered --cov-fail-under=95

conformance: $(STAMP) tests/conformance/node_modules  ## run the official conformance suite of MCP against the server on a port
	PYTHONPATH=tests $(BIN)/python -m conformance.run

clients: $(STAMP) tests/clients/node_modules  ## clients that nobody here wrote, each through a whole conversation, and hosts with what install writes; CLIENTS="inspector adk" for a part
	PYTHONPATH=tests $(BIN)/python -m clients.run $(CLIENTS)

# What writes workbooks for tests/intake/workbooks/test_programs.py: statsmodels would bring any pandas.
reference: FRAMES := 'pandas>=3,<4' 'openpyxl>=3.1,<4' 'XlsxWriter>=3.2.5,<4' 'odfpy>=1.4,<2'
reference: $(STAMP)  ## the figures that comparisons are tested against, as scikit-learn and statsmodels have them now; GoogleSQL for make matrix
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-$@
	$(BIN)/uv pip install --quiet --python .venv-$@/bin/python 'scikit-learn>=1.9,<2' 'statsmodels>=0.15,<0.16' 'zetasql>=0.1.5,<0.2' $(FRAMES)
	.venv-$@/bin/python -W ignore tests/support/agreement/reference.py $(REFERENCE_ARGS)

simulations: $(STAMP)  ## hundreds of orders made at random: bills in their likely range, drift that is named, intervals that hold; prints the figures
	MATRIX=full $(BIN)/python -m pytest -q -s -n 2 --timeout 3600 -k "likely_range or a_bootstrap_of or like_its_trial or that_drifted or as_often_as" tests/intake/prices tests/batches/trials tests/batches/answers/test_intervals.py

matrix: $(STAMP) reference tests/js/node_modules  ## all of what the tests run a part of, each kill and fault; writes the tables of tests/README.md
	MATRIX=full $(BIN)/python -m pytest -q tests/crash
	MATRIX=full $(BIN)/python -m pytest -q -n 2 -m "matrix or long" --ignore tests/crash

# Both ends of every range in pyproject.toml, whatever constraints.txt pins, each in an environment of its own.
oldest: RESOLUTION := lowest-direct
newest: RESOLUTION := highest
oldest newest: $(STAMP) tests/js/node_modules
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-$@
	$(BIN)/uv pip install --quiet --python .venv-$@/bin/python --resolution $(RESOLUTION) --editable '.[dev,test]'
	MATRIX=long .venv-$@/bin/python -m pytest -q $(WORKERS) $(TESTS)

oldest:  ## run the tests with the oldest version of every dependency; TESTS="tests/gemini" for a part
newest:  ## run the tests with the newest version of every dependency; TESTS="tests/gemini" for a part

bench: $(STAMP)  ## ratios against the plain way; BENCH_ARGS="--megabytes 1000 --rows 1000000", INTEGRITY_ARGS="--rows 1000000", SHEETS_ARGS="--rows 1000000", FOLDER_ARGS="--files 200000" for the full size
	PYTHONPATH=tests $(BIN)/python -m bench.bench $(BENCH_ARGS)
	$(BIN)/python tests/bench/context.py
	PYTHONPATH=tests $(BIN)/python tests/bench/integrity.py $(INTEGRITY_ARGS)
	PYTHONPATH=tests $(BIN)/python tests/bench/integrity.py --cloud $(INTEGRITY_ARGS)
	$(BIN)/python tests/bench/comparing_bench.py $(COMPARING_ARGS)
	PYTHONPATH=tests $(BIN)/python -m bench.now_bench
	PYTHONPATH=tests $(BIN)/python -m bench.reuse_bench $(REUSE_ARGS)
	$(BIN)/python tests/bench/files/sheets_bench.py $(SHEETS_ARGS)
	$(BIN)/python tests/bench/files/xlsx_bench.py $(SHEETS_ARGS)
	PYTHONPATH=tests $(BIN)/python -m bench.files.folder_bench $(FOLDER_ARGS)

format: $(STAMP)  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The validators are a gigabyte of programs, so that they are run where they are there already.
manifests: $(STAMP)  ## write server.json, manifest.json and the README's tables, and validate them if make validate was run before
	$(BIN)/python manifests/generate.py
	@if test -d tests/clients/node_modules; then $(BIN)/python tests/clients/validate.py; fi

snapshots: $(STAMP)  ## write what every tool and command says anew, after a text was changed on purpose
	UPDATE_SNAPSHOTS=1 $(BIN)/python -m pytest -q tests/assistant/snapshots tests/cli/snapshots

validate: $(STAMP) tests/clients/node_modules  ## every validator that hosts offer, over bundle, plugins, extension and skill; needs npm
	$(BIN)/python tests/clients/validate.py

bundle: $(STAMP)  ## pack dist/gemini-batch-mcp.mcpb for Claude Desktop: the wheel, with every dependency pinned by hash
	$(BIN)/python manifests/bundle.py

release-check: $(STAMP)  ## build wheel, sdist, bundle and image context, and check them; RELEASE_ARGS=--final for the release itself
	$(BIN)/python manifests/release.py $(RELEASE_ARGS)

pictures: $(STAMP) tests/js/node_modules  ## renew the README's picture of the dashboard; all of its views are in dashboard-pictures then
	DASHBOARD_PICTURES=dashboard-pictures $(BIN)/python -m pytest -q tests/assistant/test_dashboard.py
	cp dashboard-pictures/answers-light.png docs/dashboard.png

constraints: $(STAMP)  ## pin every dependency by name, version and hash
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra test --universal --python-version 3.11 --upgrade \
	  --no-strip-extras --generate-hashes --no-header --no-emit-index-url --no-annotate --quiet -o constraints.txt

clean:  ## remove what the targets made
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-reference tests/js/node_modules tests/conformance/node_modules tests/clients/node_modules gemini-batch-demo dashboard-pictures

# Without resolving anew: the file is whole, and an older pip takes google-auth and google-auth[requests] for two things.
# By its pip, and not by its folder: where Debian's python3-venv is missing, half an environment is left behind.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11. Name a newer one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The JavaScript SDK, the tokenizer, the browser's driver and the host of MCP Apps: their tests are skipped, with that said, where there is no npm.
tests/js/node_modules: tests/js/package.json
	if command -v npm >/dev/null; then npm install --prefix tests/js --no-audit --no-fund --silent; fi
	mkdir -p $@ && touch $@

# The suite, and the Node that it needs (22), which leaves the one of the system alone.
tests/conformance/node_modules: tests/conformance/package.json
	npm install --prefix tests/conformance --no-audit --no-fund --no-package-lock --silent
	touch $@

# More than a gigabyte: three hosts are programs of their own, and bring a Node of 22.
tests/clients/node_modules: tests/clients/package.json
	npm install --prefix tests/clients --no-audit --no-fund --no-package-lock --silent
	touch $@
