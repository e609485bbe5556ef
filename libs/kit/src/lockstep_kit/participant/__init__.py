"""The participant's half of the two-phase protocol, shared by all participants.

`ports` says what a participant must bring; `engine` runs commands through the fence in one transaction each and signs what comes out; `servicer` speaks
`ParticipantService`; `store` holds the statements; `schema` the tables that each participant's database has.
"""
