"""The trace that a caller names is in the log line of its request, so that both sides' lines can be put together."""

from harness.launched import Server, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_the_trace_of_the_caller_is_logged(server: Server) -> None:
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 1}}
    reply = server.post("/generate", body, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert reply.status_code == 200
    wait_until(lambda: TRACE in server.log.read_text(errors="replace"), 5, "log line with the trace")
    line = next(line for line in server.log.read_text(errors="replace").splitlines() if TRACE in line)
    assert "answered" in line


def test_a_malformed_trace_is_nobodys(server: Server) -> None:
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 1}}
    forged = "00-not-a-trace-id-xyzzy"
    assert server.post("/generate", body, headers={"traceparent": forged}).status_code == 200
    assert "xyzzy" not in server.log.read_text(errors="replace")
