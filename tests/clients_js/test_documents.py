"""What documents show of the TypeScript client compiles against its build."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.clients_js.conftest import PACKAGE
from tests.support.document import Block, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = PACKAGE.parents[1]


def ours(block: Block) -> bool:
    """Whether a block is code for our package, and no fragment."""
    return block.language in ("ts", "tsx") and "@runcast/client" in block.code


@pytest.mark.parametrize("document", ["docs/migrating.md", "clients/js/README.md"])
def test_the_examples_compile(built: Path, tmp_path: Path, document: str) -> None:
    examples = list(filter(ours, blocks((ROOT / document).read_text(encoding="utf-8"))))
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        alone = "" if re.search(r"^(im|ex)port ", example.code, re.M) else "export {};\n"
        (tmp_path / f"example{number}.tsx").write_text(example.code + alone)
    (tmp_path / "app.tsx").write_text("export const App = () => null;\n")
    (tmp_path / "given.d.ts").write_text(
        'declare const client: import("@runcast/client").Client;\n'
        "declare function render(what: unknown): void;\n"
    )
    modules = PACKAGE / "node_modules"
    built_types = {
        f"@runcast/client{name}": [str(PACKAGE / "dist" / file)]
        for name, file in (
            ("", "index.d.ts"),
            ("/react", "react/index.d.ts"),
            ("/ai", "ai/index.d.ts"),
        )
    }
    config = {
        "extends": str(PACKAGE / "tsconfig.json"),
        "compilerOptions": {
            "module": "ESNext",
            "moduleResolution": "Bundler",
            "moduleDetection": "force",
            "paths": built_types | {"*": [f"{modules}/@types/*", f"{modules}/*"]},
            "typeRoots": [str(modules / "@types")],
        },
        "include": ["*"],
        "exclude": [],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    compiler = modules / ".bin" / "tsc"
    done = subprocess.run([compiler, "-p", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
