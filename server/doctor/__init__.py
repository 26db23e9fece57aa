"""`fieldsync doctor`: what is wrong with an installation, and what to do about it.

Every check looks at one thing as the server itself would use it, changes nothing that stays, and tells one
finding. They are listed in :mod:`server.doctor.visit`.
"""
