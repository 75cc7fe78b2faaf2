# Everything here needs Python 3.11 or 3.12 and nothing else: uv is taken from PATH, or put into .uv/.
UV_PATH := $(shell command -v uv 2>/dev/null)
UV := $(or $(UV_PATH),.uv/bin/uv)
PYTHON := $(shell for p in python3.12 python3.11 python3 python; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
export RAY_ENABLE_UV_RUN_RUNTIME_ENV := 0
export RAY_USAGE_STATS_ENABLED := 0
export PYANNOTE_METRICS_ENABLED := 0
# Processes start by the hundred; each would compile its libraries again.
unexport PYTHONDONTWRITEBYTECODE
RUN := .venv/bin/
# Processes that share the tests: three keep two cores at work, as a quarter of the time is waiting. A file stays in one:
# it has the fixtures. `make test JOBS=0` runs all in one.
JOBS := 3
PYTEST := $(RUN)pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo check test lint types docs nightly matrix clean
help:    ## this list
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/:.*## / — /'

setup: .venv/.ready ## prepare the environment, extras included

.venv/.ready: pyproject.toml $(if $(UV_PATH),,.uv/bin/uv)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and was not found on PATH" >&2; exit 2; }
	$(UV) sync --quiet --all-extras --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	@touch $@

.uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and was not found on PATH" >&2; exit 2; }
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

demo: setup ## make conversations, build, train, tune by preference pairs, evaluate (a few minutes)
	$(RUN)visavis demo --out runs/demo

lint: setup
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)lint-imports --no-cache --no-logo

types: setup
	$(RUN)mypy

check: lint types ## lint, types and the tests that are not marked slow
	$(PYTEST) -m 'not slow and not nightly'

test: lint types ## lint, types and all tests but nightly ones
	$(PYTEST) --durations=10

docs: $(if $(UV_PATH),,.uv/bin/uv) ## the site, into build/site; a broken link fails
	$(UV) run --quiet --isolated --only-group docs --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" properdocs build --strict -f mkdocs.yml

nightly: setup ## tests too slow for CI, and property tests with fifty times as many inputs (an hour or more)
	HYPOTHESIS_PROFILE=nightly $(RUN)pytest --timeout=7200 -m nightly
	HYPOTHESIS_PROFILE=nightly $(RUN)pytest --timeout=7200 tests/schemas tests/pipeline/test_lists.py tests/pipeline/test_sources.py \
	  tests/stages/test_cast.py tests/stages/test_clock.py tests/stages/test_containers.py tests/stages/test_damage.py \
	  tests/stages/test_jitter.py tests/stages/test_mixing.py \
	  tests/stages/test_rendered_heads.py tests/training tests/hostile tests/live/test_messages.py tests/live/test_timeline.py \
	  tests/view/test_avatar.py tests/browser/test_base.py tests/browser/test_report.py tests/browser/test_study.py \
	  tests/pipeline/test_votes.py tests/pipeline/test_report_page.py

matrix: setup ## the wheel by plain pip with every extra, on each Python from 3.11 to 3.13 that is here (15 minutes each)
	tests/packaging/matrix $(foreach p,python3.11 python3.12 python3.13,$(shell command -v $(p)))

clean: ## remove what setup, demo and tests made
	rm -rf .venv .uv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
