"""Records the golden transcripts from the real Pushpin: record.py [scenario ...]."""

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE.parent.parent), str(HERE.parent.parent / "sample_app")]

from play import new_pool, start_all  # noqa: E402
from stage import running  # noqa: E402


def main(names):
    with (
        tempfile.TemporaryDirectory() as directory,
        running("pushpin", directory) as stage,
        new_pool() as pool,
    ):
        for name, transcript in start_all(stage, pool, names).items():
            path = HERE / "transcripts" / f"{name}.json"
            try:
                text = json.dumps(transcript.result(), indent=1, ensure_ascii=False)
            except Exception as exc:
                print(f"{name}: not recorded: {exc!r}")
                continue
            path.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
