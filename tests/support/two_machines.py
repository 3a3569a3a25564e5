"""A Ray cluster of two machines on this one, for tests in tests/ray."""

from pathlib import Path


class TwoMachines:
    """A cluster of two machines with a processor each, of which the second can be killed and replaced."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.second = self.cluster.add_node(num_cpus=1)
        self.address: str = self.cluster.address

    def kill_second(self) -> None:
        """As a power cut does."""
        self.cluster.remove_node(self.second, allow_graceful=False)

    def ensure_second(self) -> None:
        """Replace the second machine if it was killed."""
        if self.second not in self.cluster.list_all_nodes():
            self.second = self.cluster.add_node(num_cpus=1)
        self.cluster.wait_for_nodes()


def files_of(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
