# Short names for what README.md and CONTRIBUTING.md describe. `just` lists them.

_list:
    @just --list --unsorted

# Build, start a neuron and a cortex, chat, serve until Ctrl-C.
demo *arguments:
    cargo demo {{ arguments }}

# Every test of the workspace.
test:
    cargo test --workspace

# The rules of ARCHITECTURE.md.
tidy:
    cargo tidy

# Clippy as CI runs it.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Format everything.
fmt:
    cargo fmt --all

# The CUDA compiler, into the target folder.
cuda-toolkit:
    cargo xtask cuda-toolkit

# Tests and benchmark for a machine with a card and without Rust; `FOLDER/run` runs them there.
gpu-pack folder="target/gpu-pack":
    tests/gpu/pack {{ folder }}

# Every test that wants a card, on this machine.
gpu-test *names:
    TESTS_ONLY=1 tests/gpu/pack && target/gpu-pack/run {{ names }}

# Everything that CI runs.
ci:
    bash .ci/run

# Held-out questions through the HTTP API of a server that runs, for example `cargo demo`'s.
score url="http://127.0.0.1:31313" *arguments:
    cargo run --release --package bench -- score --url {{ url }} --model sprout --set models/sprout/heldout.jsonl {{ arguments }}

# Time to first token, directly from a neuron and through cortex, side by side.
bench direct="http://127.0.0.1:13131" through="http://127.0.0.1:31313" *arguments:
    cargo run --release --package bench -- ttft --model sprout --direct {{ direct }} --through {{ through }} {{ arguments }}

# The clients that people really use, against a fleet on this machine; needs PyPI and npm.
clients *arguments:
    tests/clients/run {{ arguments }}
