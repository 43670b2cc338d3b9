"""What requests carry, before a route sees it: what each route declares, and checks against that.

Nothing here knows a particular route; what a route does with what it gets is in `routes`.
"""
