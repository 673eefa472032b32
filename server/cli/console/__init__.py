"""Results of the commands: text for the terminal, log lines, exit statuses. Imports nothing of ours."""

from server.cli.console.exit_status import ExitStatus
from server.cli.console.logs import configure_logs
from server.cli.console.terminal import DownloadProgress, open_standard_streams, print_error, print_table

__all__ = ["DownloadProgress", "ExitStatus", "configure_logs", "open_standard_streams", "print_error", "print_table"]
