#!/bin/sh
# Compile the kernels of ms_deform_attn ahead of time. PYTHON names the interpreter (default: python).
cd "$(dirname "$0")" && exec "${PYTHON:-python}" setup.py build install "$@"
