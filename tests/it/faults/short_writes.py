#!/usr/bin/python3
"""A FUSE file system that writes a little at a time, until it is full.

short_writes.py SOURCE MOUNTPOINT BYTES_PER_WRITE ROOM

ROOM is a file with the number of bytes by which files may still grow; it is read at each write.
There is no fallocate(2). Without direct_io the kernel would turn a short write into EIO.
"""

import errno
import os
import sys

from fusepy import FUSE, FuseOSError, Operations

SOURCE, MOUNTPOINT, PER_WRITE, ROOM = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]


class ShortWrites(Operations):
    def __call__(self, op, path, *args):
        try:
            return getattr(self, op)(SOURCE + path, *args)
        except FuseOSError:
            raise
        except OSError as error:
            raise FuseOSError(error.errno) from None

    def getattr(self, path, handle=None):
        stat = os.lstat(path)
        names = "st_mode st_nlink st_uid st_gid st_size st_atime st_mtime st_ctime".split()
        return {name: getattr(stat, name) for name in names}

    def readdir(self, path, handle):
        return [".", "..", *os.listdir(path)]

    def mkdir(self, path, mode):
        os.mkdir(path, mode)

    def chmod(self, path, mode):
        os.chmod(path, mode)

    def open(self, path, info):
        info.fh = os.open(path, info.flags & ~os.O_CREAT)
        info.direct_io = True
        return 0

    def create(self, path, mode, info):
        info.fh = os.open(path, os.O_RDWR | os.O_CREAT, mode)
        info.direct_io = True
        return 0

    def read(self, path, size, offset, info):
        return os.pread(info.fh, size, offset)

    def write(self, path, data, offset, info):
        data = data[:PER_WRITE]
        with open(ROOM) as file:
            room = int(file.read())
        size = os.fstat(info.fh).st_size
        if offset + len(data) > size + room:
            data = data[: size + room - offset]
            if not data:
                raise FuseOSError(errno.ENOSPC)
        written = os.pwrite(info.fh, data, offset)
        growth = max(0, offset + written - size)
        with open(ROOM, "w") as file:
            file.write(str(room - growth))
        return written

    def truncate(self, path, length, info=None):
        os.truncate(path, length)

    def fsync(self, path, datasync, info):
        os.fsync(info.fh)
        return 0

    def release(self, path, info):
        os.close(info.fh)
        return 0

    def rename(self, old, new):
        os.rename(old, SOURCE + new)

    def unlink(self, path):
        os.unlink(path)

    flush = fsyncdir = opendir = releasedir = access = utimens = lambda self, path, *args: 0


FUSE(ShortWrites(), MOUNTPOINT, foreground=True, nothreads=True, raw_fi=True, default_permissions=True)
