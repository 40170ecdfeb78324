"""`reid schema`: the JSON schema of run files, for editors. Torch-free."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from reidcore.contracts.commands import RunCommand


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.description = (
        "Print the JSON schema of run files, made from the plugins that are installed, by\n"
        "which an editor completes and checks them."
    )
    parser.epilog = (
        "In an editor with taplo, such as VS Code with Even Better TOML:\n"
        "  reid schema -o reid.schema.json\n"
        "and in the first lines of a run file\n"
        "  #:schema ./reid.schema.json\n"
        "Make it again when plugins were installed or upgraded. `reid check` finds more."
    )
    parser.add_argument(
        "--evaluation",
        action="store_true",
        help="of files that give a trained run another evaluation, as in reid eval RUN_DIR FILE",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there")
    return schema_command


def schema_command(options: Namespace) -> int:
    """`reid schema`; returns 0 or raises `ReidError`."""
    from reidcore.cli.as_json import as_text
    from reidcore.cli.commands import unusable_plugins
    from reidcore.plugins.loading import Plugins
    from reidcore.plugins.run_file_schema import evaluation_file_schema, run_file_schema
    from reidcore.support.files import check_output, write_atomically

    check_output(options.output)
    plugins = Plugins()
    text = as_text((evaluation_file_schema if options.evaluation else run_file_schema)(plugins))
    if unusable := unusable_plugins(plugins):
        print(f"note: without the plugins that cannot be used: {unusable}", file=sys.stderr)
    if options.output is None:
        sys.stdout.write(text)
        return 0
    write_atomically(options.output, text)
    print(f"wrote {options.output}")
    return 0
