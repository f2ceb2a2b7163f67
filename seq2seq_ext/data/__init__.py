# SPDX-License-Identifier: MIT
"""Text for training: `phrasebook` needs nothing else; tokenizers and batches the extra `train`."""
