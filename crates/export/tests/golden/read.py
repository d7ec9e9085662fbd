"""Shows what TensorBoard reads in run.tfevents (pip install tensorboard)."""

from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata

for event in EventFileLoader(str(Path(__file__).with_name("run.tfevents"))).Load():
    for value in event.summary.value:
        content = value.metadata.plugin_data.content
        if value.tag == metadata.SESSION_START_INFO_TAG:
            print(event.wall_time, "start", metadata.parse_session_start_info_plugin_data(content))
        elif value.tag == metadata.SESSION_END_INFO_TAG:
            print(event.wall_time, "end", metadata.parse_session_end_info_plugin_data(content))
        else:
            print(event.wall_time, event.step, value.tag, list(value.tensor.float_val))
