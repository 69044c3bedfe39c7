"""The recipe of the model that ships in the package: from pinned public packages to a checkpoint and its scores.

    fetch → art → scenes → pictures → features → questions → rows → train → export → evaluate

A scene is a plan without pixels, a pure function of a seed; `pictures` draws it, `questions` asks about it, and neither
reads the other. The vision encoder stays as it was published, so what it sees in a picture is computed once and kept.
Run by `make embedded-model` and `make embedded-eval`; see `docs/embedded-model.md`.
"""
