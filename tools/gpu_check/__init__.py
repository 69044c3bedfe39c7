"""What can only be seen on a GPU, tried on one in ten minutes: `tools/gpu_check.sh`.

Each part is a function that yields rows, in a process of its own and within a time of its own; a part that fails takes
nothing else along. With `--tiny` the same code runs on a CPU, over shapes that mean nothing, so that it cannot rot.
"""
