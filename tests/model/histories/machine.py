"""The whole history: any step in any order, and at its end everybody finishes."""

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.model.histories.arena import PARTITIONS
from tests.model.histories.expected import ExpectedFile
from tests.model.histories.workers import Workers


class RandomHistory(Workers):
    """A history of every kind of step."""

    @rule(also=st.sampled_from(["embed", "embed and project"]))
    def catch_up(self, also: str) -> None:
        """Consumers do all that there is to do; so do projectors."""
        self.embed_all()
        if also == "embed and project":
            self._project_all()

    def _project_all(self) -> None:
        for partition in range(PARTITIONS):
            self.project_whole(partition)

    def teardown(self) -> None:
        """Lets everybody finish, so that the next history finds nothing in flight, and judges the end."""
        try:
            if self.is_sound:
                note("everybody finishes")
                self._finish_all()
        except BaseException:
            self.is_sound = False
            raise
        finally:
            if not self.is_sound:
                self.arena.leave()

    def _finish_all(self) -> None:
        for stream in self.streaming:
            self.end_stream(stream, "commit")
        self.compare()
        self.call(self.world.value, "UPDATE leases SET expires = '-infinity' RETURNING 1")
        self.embed_all()
        self._project_all()
        self.collect()
        self.read_and_verify()
        for file in self.expected.files.values():
            self._judge_finished(file)

    def _judge_finished(self, file: ExpectedFile) -> None:
        """All that is needed is embedded, and the target is active unless it waits on a dead letter."""
        needed = set(file.versions[file.target].chunks) if file.target else set()
        left = needed - file.embedded - file.letters.keys()
        assert not left, f"file {file.key}: chunks of the target are never embedded"
        if "open" not in {file.letters.get(chunk) for chunk in needed}:
            assert file.active == (file.target or None), f"file {file.key}: its target never becomes active"
