#!/usr/bin/env bash
# What a release is held to beyond the tests of every change: the slow tests, every model family among them.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/pytest -m slow
