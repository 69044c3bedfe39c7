"""One tensor-parallel rank of a vision-language model, driven by the router over gRPC.

Tensors live here; text, HTTP and scheduling do not.
"""
