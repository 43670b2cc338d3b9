"""What is derived from neighbours: recommendation, diversity, groups, paging, votes, comparison.

Works on any `index.contract.Searchable`; nothing here reads an engine's files or rows.
"""
