"""The installed wheel serves the README's example from a folder that holds nothing of the checkout.

Takes the checkout's path; needs no package but what the wheel itself brings.
"""

import sys
from pathlib import Path

import trioweb

checkout = Path(sys.argv[1]).resolve()
if checkout in Path(trioweb.__file__).resolve().parents:
    sys.exit(f"this is the checkout's trioweb, not the wheel's: {trioweb.__file__}")

# After that import, so that it can't find the checkout's package.
sys.path.append(str(checkout))
from tests.support.examples import check_example  # noqa: E402

check_example(checkout / "docs" / "examples" / "send_notification.py", Path.cwd())
print(f"{Path(trioweb.__file__).parent} serves the example")
