/* Lockstep's commit protocol, modelled a second time and by other means than the search over production's functions: two-phase commit with
 * a durable decision, one delegated (soft) leg, tombstones, epochs, take-overs, and a soup of messages.
 *
 * Messages are a set that only grows: each can be taken at any time, in any order, any number of times, or never. A take-over raises the
 * epoch; everything that older owners sent is still in the soup. Legs are served at places of their own, with an outside world that may
 * refuse what it promised (once) and that executes what it was told whenever it likes.
 *
 * Run: spin -a lockstep.pml && gcc -DSAFETY -O2 -o pan pan.c && ./pan        (model/promela.py does, with every bug of the list below)
 * Bugs: -DBUG_EARLY_COMMIT  -DBUG_NO_TOMBSTONE  -DBUG_NO_EPOCH  -DBUG_ABORT_AFTER_COMMIT  -DBUG_OVERWRITE
 *       -DBUG_REFUSAL_RELEASES  -DBUG_LATE_DELEGATED  -DBUG_UNKNOWN_FAILED  -DBUG_ALL_DELEGATED  -DBUG_NO_ESCALATION  -DBUG_LATE_PREPARE
 */
#ifndef LEGS
#define LEGS 2
#endif
#ifndef EPOCHS
#define EPOCHS 3
#endif
#define AT(leg, epoch) ((leg) * EPOCHS + (epoch))
#ifdef DELEGATE
#define DECIDED DELEGATED
#else
#define DECIDED COMMIT
#endif

mtype = { UNDECIDED, COMMIT, ABORT, DELEGATED };
mtype = { UNKNOWN, PREPARED, REFUSED, COMMITTING, COMMITTED, ABORTING, RELEASED };
mtype = { NOTHING, HELD, EXECUTED, GONE, FREED };

/* The coordinator's rows. */
mtype decision = UNDECIDED;
byte epoch = 0;
bit yes[LEGS], no[LEGS], done[LEGS], refused[LEGS], released[LEGS];
bool escalated = false;
/* The soup: commands of each owner. */
bit prepare[LEGS * EPOCHS], commit[LEGS * EPOCHS], delegated[LEGS * EPOCHS], abort[LEGS * EPOCHS];
/* The soup: what participants reported. */
bit said_yes[LEGS], said_no[LEGS], said_done[LEGS], said_refused[LEGS], said_released[LEGS];
/* The participants' rows, and the world outside. */
mtype phase[LEGS] = UNKNOWN;
byte fence[LEGS];
bit decided_here[LEGS], told_to_execute[LEGS], tombstone[LEGS];
mtype outside[LEGS] = NOTHING;
bool late = false, late_there = false, broken = false;

#if LEGS == 3
#define ALL(bits) (bits[0] && bits[1] && bits[2])
#define ANY(bits) (bits[0] || bits[1] || bits[2])
#define SOME(array, value) (array[0] == value || array[1] == value || array[2] == value)
#else
#define ALL(bits) (bits[0] && bits[1])
#define ANY(bits) (bits[0] || bits[1])
#define SOME(array, value) (array[0] == value || array[1] == value)
#endif

inline decide(to) {
    assert(decision == UNDECIDED || (decision == DELEGATED && to != DELEGATED));
    decision = to
}

/* -- The coordinator: whoever owns the plan acts on its rows alone ------------------------------------------------------------ */

inline hear(leg) {
    if
    :: said_yes[leg] && !yes[leg] -> yes[leg] = 1
    :: said_no[leg] && !no[leg] -> no[leg] = 1
    :: said_refused[leg] && !refused[leg] -> refused[leg] = 1
    :: said_released[leg] && !released[leg] -> released[leg] = 1
    :: said_done[leg] && !done[leg] -> done[leg] = 1
    fi
}

#define NEWS(leg) ((said_yes[leg] && !yes[leg]) || (said_no[leg] && !no[leg]) || (said_done[leg] && !done[leg]) \
    || (said_refused[leg] && !refused[leg]) || (said_released[leg] && !released[leg]))

#ifdef BUG_EARLY_COMMIT
#define MAY_COMMIT(leg) (decision == COMMIT || (decision == UNDECIDED && yes[leg]))
#else
#define MAY_COMMIT(leg) (decision == COMMIT && !done[leg] && !escalated)
#endif
#ifdef BUG_ALL_DELEGATED
#define MAY_DELEGATE(leg) (decision == DELEGATED)
#else
#define MAY_DELEGATE(leg) (decision == DELEGATED && leg == 0)
#endif
#ifdef BUG_ABORT_AFTER_COMMIT
#define MAY_ABORT(leg) (decision == ABORT || (decision == COMMIT && escalated && !done[leg]) || STOPS_DELEGATE(leg))
#else
#define MAY_ABORT(leg) ((decision == ABORT && !released[leg]) || STOPS_DELEGATE(leg))
#endif
#define STOPS_DELEGATE(leg) (decision == DELEGATED && leg == 0 && !done[0] && (late || refused[0]))

/* What is in force is in the soup, as of whoever owns the plan now: whether it was sent does not matter, since it need not arrive. */
inline send_of(leg) {
    if
    :: decision == UNDECIDED && !yes[leg] && !no[leg] -> prepare[AT(leg, epoch)] = 1
    :: else -> skip
    fi;
    if
    :: MAY_COMMIT(leg) -> commit[AT(leg, epoch)] = 1
    :: else -> skip
    fi;
    if
    :: MAY_DELEGATE(leg) -> delegated[AT(leg, epoch)] = 1
    :: else -> skip
    fi;
    if
    :: MAY_ABORT(leg) -> abort[AT(leg, epoch)] = 1
    :: else -> skip
    fi
}

inline send() {
    send_of(0);
    send_of(1)
#if LEGS == 3
    ; send_of(2)
#endif
}

active proctype coordinator() {
    atomic { send() }
end:
    do
    :: atomic { NEWS(0) -> hear(0); send() }
    :: atomic { NEWS(1) -> hear(1); send() }
#if LEGS == 3
    :: atomic { NEWS(2) -> hear(2); send() }
#endif
    :: atomic { !late -> late = true; send() }
    :: atomic { decision == UNDECIDED && ALL(yes) && !ANY(refused) && !late -> decide(DECIDED); send() }
    :: atomic { decision == UNDECIDED && (ANY(no) || ANY(refused) || late) -> decide(ABORT); send() }
    :: atomic { decision == DELEGATED && done[0] -> decide(COMMIT); send() }
#ifdef BUG_REFUSAL_RELEASES
    :: atomic { decision == DELEGATED && refused[0] && !done[0] -> decide(ABORT); send() }
#endif
#ifdef BUG_UNKNOWN_FAILED
    :: atomic { decision == DELEGATED && late && !done[0] -> decide(ABORT); send() }
#endif
    :: atomic { decision == DELEGATED && released[0] && !done[0] -> decide(ABORT); send() }
#ifdef BUG_OVERWRITE
    :: atomic { decision == COMMIT && ANY(refused) -> decide(ABORT); send() }
#endif
#ifndef BUG_NO_ESCALATION
    :: atomic { decision == COMMIT && ANY(refused) && !escalated -> escalated = true; send() }
#endif
    /* Another replica takes the plan over; what the old one sent is still in the soup. */
    :: atomic { epoch < EPOCHS - 1 -> epoch++; send() }
    od
}

/* -- A participant: the fence, and what it finds outside ----------------------------------------------------------------------- */

#ifdef BUG_NO_EPOCH
#define FENCED(leg, e) true
#else
#define FENCED(leg, e) ((e) >= fence[leg])
#endif
#ifdef BUG_NO_TOMBSTONE
#define PREPARABLE(leg) (phase[leg] == UNKNOWN || phase[leg] == RELEASED)
#else
#define PREPARABLE(leg) (phase[leg] == UNKNOWN)
#endif
#ifdef BUG_LATE_PREPARE
#define IN_TIME true
#else
#define IN_TIME (!late_there)
#endif
#ifdef BUG_LATE_DELEGATED
#define BEGINS_IN_TIME true
#else
#define BEGINS_IN_TIME (!late_there)
#endif
#define ABORTABLE_COMMITTING(leg) (phase[leg] == COMMITTING && !decided_here[leg])
#define ABORTABLE(leg) (phase[leg] == UNKNOWN || phase[leg] == PREPARED || phase[leg] == REFUSED || ABORTABLE_COMMITTING(leg))
#define TAKES_PREPARE(leg, e) (prepare[AT(leg, e)] && FENCED(leg, e) && PREPARABLE(leg) && IN_TIME)
#define TAKES_COMMIT(leg, e) (commit[AT(leg, e)] && FENCED(leg, e) && phase[leg] == PREPARED)
#define TAKES_DELEGATED(leg, e) (delegated[AT(leg, e)] && FENCED(leg, e) && phase[leg] == PREPARED && BEGINS_IN_TIME)
#define TAKES_ABORT(leg, e) (abort[AT(leg, e)] && FENCED(leg, e) && ABORTABLE(leg))

inline accepted(leg, e) {
    assert(e >= fence[leg]); /* a stale epoch is refused */
    fence[leg] = e
}

inline take_prepare(leg, e) {
    accepted(leg, e);
    assert(!tombstone[leg]);
    assert(!late_there);
    if
    :: phase[leg] = PREPARED; outside[leg] = HELD; said_yes[leg] = 1
    :: phase[leg] = REFUSED; said_no[leg] = 1
    fi
}

inline take_commit(leg, e, final) {
    accepted(leg, e);
    assert(final || !late_there);
    assert(decision == COMMIT || (decision == DELEGATED && leg == 0));
    phase[leg] = COMMITTING; decided_here[leg] = final; told_to_execute[leg] = 1
}

inline take_abort(leg, e) {
    accepted(leg, e);
    assert(!(phase[leg] == COMMITTING && decided_here[leg]));
    assert(decision != COMMIT);
    phase[leg] = ABORTING
}

proctype participant(byte leg) {
end:
    do
    :: atomic { TAKES_PREPARE(leg, 0) -> take_prepare(leg, 0) }
    :: atomic { TAKES_PREPARE(leg, 1) -> take_prepare(leg, 1) }
#if EPOCHS == 3
    :: atomic { TAKES_PREPARE(leg, 2) -> take_prepare(leg, 2) }
#endif
    :: atomic { TAKES_COMMIT(leg, 0) -> take_commit(leg, 0, 1) }
    :: atomic { TAKES_COMMIT(leg, 1) -> take_commit(leg, 1, 1) }
#if EPOCHS == 3
    :: atomic { TAKES_COMMIT(leg, 2) -> take_commit(leg, 2, 1) }
#endif
    :: atomic { TAKES_DELEGATED(leg, 0) -> take_commit(leg, 0, 0) }
    :: atomic { TAKES_DELEGATED(leg, 1) -> take_commit(leg, 1, 0) }
#if EPOCHS == 3
    :: atomic { TAKES_DELEGATED(leg, 2) -> take_commit(leg, 2, 0) }
#endif
    :: atomic { TAKES_ABORT(leg, 0) -> take_abort(leg, 0) }
    :: atomic { TAKES_ABORT(leg, 1) -> take_abort(leg, 1) }
#if EPOCHS == 3
    :: atomic { TAKES_ABORT(leg, 2) -> take_abort(leg, 2) }
#endif
    /* The new owner asks, and the fence rises. */
    :: atomic { fence[leg] < epoch -> fence[leg] = epoch }
    /* The world outside. */
    :: atomic { told_to_execute[leg] && outside[leg] == HELD -> outside[leg] = EXECUTED }
    :: atomic { told_to_execute[leg] && outside[leg] == HELD && !broken -> outside[leg] = GONE; broken = true }
#ifdef DELEGATE
    /* A refusal is a word; only a confirmed release keeps a rail from executing after all. */
    :: atomic { leg == 0 && outside[leg] == GONE && (phase[leg] == REFUSED || phase[leg] == ABORTING) -> outside[leg] = EXECUTED }
#endif
    /* What is found there. */
    :: atomic { phase[leg] == COMMITTING && outside[leg] == EXECUTED -> phase[leg] = COMMITTED; said_done[leg] = 1 }
    :: atomic { phase[leg] == COMMITTING && outside[leg] == GONE -> phase[leg] = REFUSED; said_refused[leg] = 1 }
    :: atomic { phase[leg] == ABORTING && outside[leg] == EXECUTED -> phase[leg] = COMMITTED; said_done[leg] = 1 }
    :: atomic {
        phase[leg] == ABORTING && outside[leg] != EXECUTED ->
        outside[leg] = FREED; phase[leg] = RELEASED; said_released[leg] = 1; tombstone[leg] = 1
    }
    od
}

active proctype clock_there() {
end:
    late_there = true
}

/* -- What must hold ------------------------------------------------------------------------------------------------------------ */

#define HALF_SETTLED (SOME(outside, EXECUTED) && SOME(outside, FREED))
#define ENDED_LEG(leg) (phase[leg] == COMMITTED || phase[leg] == RELEASED || phase[leg] == REFUSED || phase[leg] == UNKNOWN)
#if LEGS == 3
#define ENDED_LEGS (ENDED_LEG(0) && ENDED_LEG(1) && ENDED_LEG(2))
#define ALL_EXECUTED (outside[0] == EXECUTED && outside[1] == EXECUTED && outside[2] == EXECUTED)
#else
#define ENDED_LEGS (ENDED_LEG(0) && ENDED_LEG(1))
#define ALL_EXECUTED (outside[0] == EXECUTED && outside[1] == EXECUTED)
#endif
#define ENDED (decision != UNDECIDED && decision != DELEGATED && ENDED_LEGS && !SOME(outside, HELD))

active proctype monitor() {
end:
    /* Never half-settled; a broken promise of an outside world is no fault of the protocol, and calls a person in the end. */
    atomic { HALF_SETTLED -> assert(escalated || broken) }
}

active proctype in_the_end() {
end:
    /* Nothing is left to do: the plan has ended everywhere, or a person was called; and nobody was misled. */
    atomic {
        timeout ->
        assert(escalated || ENDED);
        assert(escalated || !(SOME(outside, EXECUTED) && (SOME(outside, FREED) || SOME(outside, GONE))));
        assert(escalated || decision != COMMIT || ALL_EXECUTED);
        assert(decision != ABORT || !SOME(outside, EXECUTED))
    }
}

init {
    atomic {
        run participant(0); run participant(1)
#if LEGS == 3
        ; run participant(2)
#endif
    }
}
