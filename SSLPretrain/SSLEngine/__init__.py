"""SSLEngine: learning from the planes of MR exams. Everything that computes; knows nothing of Slicer.

The application process may import ``geometry``, ``studies``, ``jobs``, ``settings`` and ``structures``;
none of them imports torch. The rest runs in a worker.
"""

__version__ = "0.1.0"
