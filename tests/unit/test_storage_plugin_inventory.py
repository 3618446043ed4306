"""The inventory: right answers, from few calls. S3 is a dictionary here."""

from collections.abc import Iterator

from snakemake_storage_plugin_s3_inventory.inventory import MARKER, PATIENCE, WAVE, Found, Inventory, Listed

ROOT = "bucket/run/"


class Bucket:
    """Keys and sizes; counts calls."""

    def __init__(self, *keys: str, page: int = 1000) -> None:
        self.objects = {key: Listed(key=key, size=len(key), mtime=1.0) for key in keys}
        self.page_size = page
        self.questions: list[str] = []
        self.listings: list[str] = []
        self.pages_given = 0

    def put(self, key: str, mtime: float = 2.0) -> None:
        self.objects[key] = Listed(key=key, size=len(key), mtime=mtime)

    def _below(self, prefix: str) -> list[Listed]:
        return [self.objects[key] for key in sorted(self.objects) if key.startswith(prefix)]

    def page(self, bucket: str, prefix: str, limit: int) -> tuple[list[Listed], bool]:
        self.questions.append(prefix)
        found = self._below(prefix)
        return found[:limit], len(found) > limit

    def pages(self, bucket: str, prefix: str) -> Iterator[list[Listed]]:
        self.listings.append(prefix)
        found = self._below(prefix)
        for start in range(0, len(found) or 1, self.page_size):
            self.pages_given += 1
            yield found[start : start + self.page_size]


class Asker:
    """An inventory of a bucket and how it is asked."""

    def __init__(self, bucket: Bucket, *, patience: int = 0, doubt: bool = False) -> None:
        self.bucket = bucket
        self.patience = patience
        self.doubt = doubt
        self.now = 1000.0
        self.warnings: list[str] = []
        self.inventory = Inventory(bucket, warn=self.warnings.append, clock=lambda: self.now)

    def __call__(self, key: str, root: str | None = ROOT) -> Found | None:
        return self.inventory.find("bucket", key, root, patience=self.patience, doubt_absence=self.doubt)


def test_one_listing_answers_for_present_and_absent_files() -> None:
    ask = Asker(Bucket(*(f"run/{number}" for number in range(2500))))
    assert ask("run/7") == Found(size=5, mtime=1.0)
    assert all(ask(f"run/{number}") for number in range(2500))
    assert not any(ask(f"run/x{number}") for number in range(2500))
    assert ask.bucket.listings == ["run/"]
    assert ask.bucket.questions == []


def test_a_job_with_few_files_never_lists() -> None:
    ask = Asker(Bucket("run/0", "run/1"), patience=PATIENCE)
    for number in range(PATIENCE):
        assert (ask(f"run/{number}") is not None) == (number < 2)
        assert (ask(f"run/{number}") is not None) == (number < 2)
    assert ask.bucket.listings == []
    assert len(ask.bucket.questions) == PATIENCE
    ask("run/one more")
    assert ask.bucket.listings == ["run/"]
    ask("run/and another")
    assert len(ask.bucket.questions) == PATIENCE


def test_outside_of_the_root_each_file_costs_one_question() -> None:
    ask = Asker(Bucket("other/a"))
    assert ask("other/a", None)
    assert ask("other/a", None)
    assert ask("other/b", None) is None
    assert ask("other/b", None) is None
    assert ask.bucket.questions == ["other/a", "other/b"]
    assert ask.bucket.listings == []


def test_a_directory_counts_only_with_its_marker() -> None:
    for patience in (0, PATIENCE):
        ask = Asker(Bucket("run/whole/a", f"run/whole/{MARKER}", "run/part/a", "run/whole/deep/b"), patience=patience)
        assert ask("run/part") is None
        assert "run/part" in ask.warnings[0]
        whole = ask("run/whole")
        assert whole is not None
        assert whole.directory
        assert whole.size == len("run/whole/a") + len(f"run/whole/{MARKER}") + len("run/whole/deep/b")
        assert len(ask.warnings) == 1


def test_a_single_question_sees_a_directory_behind_many_neighbours() -> None:
    # "-" and "." sort before "/", so these fill the page that the question looks at.
    neighbours = [f"run/t1-{number:03}" for number in range(150)]
    ask = Asker(Bucket(*neighbours, "run/t1/a", f"run/t1/{MARKER}"), patience=PATIENCE)
    found = ask("run/t1")
    assert found is not None
    assert found.directory
    assert ask.inventory.size_of_directory("bucket", "run/t1", ROOT) == len("run/t1/a") + len(f"run/t1/{MARKER}")
    assert ask("run/t") is None


def test_a_single_question_knows_the_size_of_a_large_directory_only_after_listing_it() -> None:
    keys = [f"run/t1/{number:04}" for number in range(300)]
    ask = Asker(Bucket(*keys, f"run/t1/{MARKER}"), patience=PATIENCE)
    found = ask("run/t1")
    assert found is not None
    assert found.size is None
    total = sum(map(len, keys)) + len(f"run/t1/{MARKER}")
    assert ask.inventory.size_of_directory("bucket", "run/t1", ROOT) == total
    assert ask.inventory.size_of_directory("bucket", "run/t1", ROOT) == total
    assert ask.bucket.listings == ["run/t1/"]


def test_what_this_process_stores_and_removes_is_known() -> None:
    ask = Asker(Bucket("run/a", "run/d/x", f"run/d/{MARKER}"))
    ask.inventory.stored("bucket", "run/b", ROOT, Found(size=3, mtime=None))
    assert ask("run/b") is not None
    ask.inventory.removed("bucket", "run/a", ROOT)
    assert ask("run/a") is None
    assert ask("run/d/x") is not None
    ask.inventory.removed("bucket", "run/d", ROOT)
    assert ask("run/d") is None
    assert ask("run/d/x") is None


def test_a_file_that_a_job_wrote_after_the_listing_is_seen() -> None:
    ask = Asker(Bucket("run/a"))
    assert ask("run/b") is None
    ask.bucket.put("run/b")
    assert ask("run/b") is None, "while the graph is made, one state of affairs holds"
    ask.doubt = True
    assert ask("run/b") == Found(size=5, mtime=2.0)
    questions = len(ask.bucket.questions)
    assert ask("run/b") is not None
    assert len(ask.bucket.questions) == questions == 1


def test_a_wave_of_finished_jobs_is_answered_by_a_listing() -> None:
    ask = Asker(Bucket())
    assert ask("run/none") is None
    ask.doubt = True
    for number in range(500):
        ask.bucket.put(f"run/{number}")
    assert all(ask(f"run/{number}") for number in range(500))
    assert len(ask.bucket.questions) <= PATIENCE + 1
    assert len(ask.bucket.listings) == 2


def test_jobs_that_finish_now_and_then_do_not_cause_listings() -> None:
    ask = Asker(Bucket())
    assert ask("run/none") is None
    ask.doubt = True
    for number in range(100):
        ask.now += WAVE / 10
        ask.bucket.put(f"run/{number}")
        assert ask(f"run/{number}")
    assert len(ask.bucket.listings) == 1


def test_an_output_to_be_written_anew_is_not_taken_from_the_old_listing() -> None:
    ask = Asker(Bucket(*(f"run/{number}" for number in range(100))))
    assert ask("run/1") == Found(size=5, mtime=1.0)
    ask.doubt = True
    ask.inventory.expect_anew([("bucket/run/1", ROOT), ("bucket/run/2", ROOT)])
    ask.bucket.put("run/1", mtime=9.0)
    assert ask("run/1") == Found(size=5, mtime=9.0)
    # A listing in between still shows the old object, which must not be taken for the new one.
    for number in range(100, 200):
        ask(f"run/{number}")
    assert len(ask.bucket.listings) >= 2
    ask.bucket.put("run/2", mtime=9.0)
    assert ask("run/2") == Found(size=5, mtime=9.0)


def test_empty_objects_that_stand_for_folders_are_not_files() -> None:
    ask = Asker(Bucket("run/", "run/folder/"))
    assert ask("run/folder") is None
