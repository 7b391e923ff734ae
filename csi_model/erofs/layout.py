"""Where each inode of a tree lies in the image, before a byte of it is written.

Inodes follow each other in breadth-first order, so that the entries of a directory are neighbours; behind them lie the blocks of
directories and symlinks too large to be kept inside their inode. An inode's number (nid) is its place in units of 32 bytes.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from csi_model.erofs.chunks import INDEX_SIZE
from csi_model.erofs.directories import deal
from csi_model.errors import UnsupportedError
from csi_model.tree.nodes import Directory, File

if TYPE_CHECKING:
    from csi_model.erofs.chunks import ChunkMap, ChunkPlanner
    from csi_model.erofs.directories import Folder
    from csi_model.tree.nodes import Node, Symlink

INODE_SIZE = 64
NID_BITS = 5
_FIRST_NID = 2
"""Not 0: programs take a directory entry whose inode number is 0 for a deleted one."""
MAX_TARGET = 4095


class Layout:
    """The places of everything; offsets and blocks count from the start of the metadata area.

    ``nids`` holds every inode once, in the order of their places, and ``indexes`` beside it the chunk index of each contiguous file
    (0 for all else; ``chunked`` has the files that need more than one chunk or a copy). ``links`` holds link counts other than 1.
    ``outside`` holds, in order, the directories and symlinks whose data is not inside their inode, and the first block of each,
    counted from ``data_start``.
    """

    __slots__ = ("_blocks", "_position", "block_size", "chunked", "folders", "indexes", "links", "nids", "outside")

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.folders: list[Folder] = []
        self.nids: dict[Node, int] = {}
        self.indexes = array("Q")
        self.chunked: dict[File, ChunkMap] = {}
        self.links: dict[Node, int] = {}
        self.outside: dict[Node, int] = {}
        self._position = _FIRST_NID << NID_BITS
        self._blocks = 0

    @property
    def data_start(self) -> int:
        """Where the blocks of ``outside`` begin."""
        return -(-self._position // self.block_size) * self.block_size

    @property
    def end(self) -> int:
        """Where the metadata ends, on a block boundary."""
        return self.data_start + self._blocks * self.block_size

    def add_file(self, node: File, planner: ChunkPlanner) -> None:
        """Place a file's inode and, behind it, its chunk indexes, which may run on over any number of blocks."""
        index = planner.contiguous(node)
        size = INDEX_SIZE
        if not index:
            chunk_map = planner.plan(node)
            size = 0
            if chunk_map:
                self.chunked[node] = chunk_map
                size = chunk_map.count * INDEX_SIZE
        self._add(node, index, INODE_SIZE, size)

    def add_directory(self, node: Directory, parent: Directory, path: str) -> None:
        """Place a directory and queue it, that its children be placed in their turn."""
        folder = deal(node, parent, path, self.block_size)
        self.folders.append(folder)
        self.links[node] = 2
        self._add_data(node, folder.size)

    def add_symlink(self, node: Symlink) -> None:
        """Place a symlink."""
        self._add_data(node, len(node.target))

    def _add_data(self, node: Node, size: int) -> None:
        if INODE_SIZE + size <= self.block_size:
            self._add(node, 0, INODE_SIZE + size, 0)
            return
        self._add(node, 0, INODE_SIZE, 0)
        self.outside[node] = self._blocks
        self._blocks += -(-size // self.block_size)

    def _add(self, node: Node, index: int, together: int, behind: int) -> None:
        """Take room for an inode whose first ``together`` bytes must lie in one block."""
        left = self.block_size - self._position % self.block_size
        if together > left:
            self._position += left
        self.nids[node] = self._position >> NID_BITS
        self.indexes.append(index)
        self._position += -(-(together + behind) >> NID_BITS) << NID_BITS


def path_of(root: Directory, wanted: Node) -> str:
    """The first path under which a node is found; only errors ask, so it may search."""
    pending: list[tuple[str, Directory]] = [("", root)]
    for path, directory in pending:
        for name, node in directory.children.items():
            here = _join(path, name)
            if node is wanted:
                return here
            if isinstance(node, Directory):
                pending.append((here, node))
    return "/"


def lay_out(root: Directory, planner: ChunkPlanner, block_bits: int) -> Layout:
    """Give every inode of the tree its place.

    Raises:
        UnsupportedError: something in the tree does not fit EROFS.
        CorruptContentError: a file's segments do not fit its size or their layer.
    """
    layout = Layout(1 << block_bits)
    layout.add_directory(root, root, "")
    nids, links = layout.nids, layout.links
    for folder in layout.folders:
        parent, children = folder.node, folder.node.children
        for name in folder.names:
            node = children.get(name)
            if node is None:  # "." and ".."
                continue
            if node in nids:
                if isinstance(node, Directory):
                    msg = f"{_join(folder.path, name)}: a directory cannot be in two places"
                    raise UnsupportedError(msg)
                links[node] = links.get(node, 1) + 1
            elif isinstance(node, File):
                layout.add_file(node, planner)
            elif isinstance(node, Directory):
                links[parent] += 1
                layout.add_directory(node, parent, _join(folder.path, name))
            else:
                if not 0 < len(node.target) <= MAX_TARGET or b"\0" in node.target:
                    msg = f"{_join(folder.path, name)}: a symlink's target has 1 to {MAX_TARGET} bytes and no zero byte"
                    raise UnsupportedError(msg)
                layout.add_symlink(node)
    return layout


def _join(path: str, name: bytes) -> str:
    return f"{path}/{name.decode('utf-8', 'backslashreplace')}"
