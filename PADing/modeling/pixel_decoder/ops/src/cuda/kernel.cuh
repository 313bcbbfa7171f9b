// Multi-scale deformable attention on the GPU, forward and backward. Needs no PyTorch header, and runs on a CPU too,
// thread by thread, when a test includes it after definitions of CUDA's words (threadIdx, __syncwarp,
// __shfl_xor_sync, ...).
#pragma once
#include "backward.cuh"
#include "collect.cuh"
#include "forward.cuh"
#include "plan.cuh"
#include "storage.cuh"
