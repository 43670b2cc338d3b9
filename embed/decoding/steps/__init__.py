"""What is done to a picture before and after its format's decoder, in the process that decodes.

`ends` completes files whose last bytes are missing, `depth` scales samples to 8 bits, and `colour`
converts them to sRGB. None of it reads headers for their costs or starts processes.
"""
