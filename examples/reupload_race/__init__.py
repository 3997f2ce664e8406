"""The race of re-processing, shown: the usual pipeline and chunkstore under the same concurrent re-uploads.

    python -m examples.reupload_race --seconds 10

Two uploaders re-upload the same 20 files of 30 chunks as fast as they can, two workers embed, a reader
searches and checks that it sees every file whole and at one upload. All of it is in a folder that is removed
at the end.
"""
