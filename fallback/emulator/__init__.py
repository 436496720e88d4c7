"""A loopback HTTP server that speaks the Messages API, so that the real SDK runs end to end without a key.

    emulator = Emulator(SimulatedSource(seed=7))          # fallback.emulator.server, .simulated
    base_url = await emulator.start()
    ...
    await emulator.stop()

Where answers come from is one small protocol (`answers.AnswerSource`): `simulated` (built-in workloads of
known difficulty), `recorded` (real answers from a Parquet file) and `static` (one fixed reply, for
benchmarks). `faults` scripts what goes wrong. What is simulated says so in the `x-tierwise-emulated` header.

Nothing is imported here: the verifiers are named as entry points by services that never start a server.
"""
