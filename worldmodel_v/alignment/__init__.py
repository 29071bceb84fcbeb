"""Whether the actions of a dataset are in the right rows: aligned, late, early, or undecidable from the data.

Row t should hold the observation o_t and the action a_t that was chosen on it; a_t changes o_t+1. A file that is late by k
rows holds a_t-k in row t. Actions and observations depend on each other in both directions: a policy that looks makes a_t
depend on o_t, and the world makes o_t+1 depend on a_t. So errors of forecasts do not tell: an action that is one row early says
more about the next frame than the right one. What tells is at which observation an action begins to add something. With b_t
the action that stands in row t, this package estimates for each offset m

    gain(m) = R²(b_t | past_m, new_m) - R²(b_t | past_m)    past_m = (o_≤t+m, r_<t+m, b_<t)    new_m = (o_t+m+1, r_t+m)

The part of an action that its past does not determine (exploration) shows in nothing that came before it. So the gain is zero
up to the action's effect, and jumps there: at m = d - k, if the world answers d rows late. Earlier actions are given, so that
frames which follow from them are no news, although the policy looked at them.

A jump at m < 0 is a late action, whatever d. One at m = 0 is an aligned action, if the world answers at once, which is assumed.
One at m > 0 is an early action, or a world that answers late: CartPole's frames show a push only after two rows. Frames cannot
tell these apart, so the tie is named, unless the reward of that row, and none before, depends on the action beyond what the
frames show (a cost of fuel or effort).

If a policy looks and the world is random, news in o_t tell of a_t too. Then the gain has no clear beginning, or a second jump
follows the first: undecidable. If the past tells of the action and nothing of it is left after the jump, it is an effect, or a
policy without noise chose the action on what was new, and actions are one row earlier than an effect would say. Both are named.

Numbers that were observed count beside the frames: velocities show an action at once that frames show a row later.

Rejected: errors of forecasts for each shift (above); R² of an inverse model in a window of three frames, which was highest one
row off in aligned Pendulum and Pong; a kernel on past and news at once, which takes five times as long and varies more.
"""

from worldmodel_v.alignment.gains import Gain, Rows
from worldmodel_v.alignment.rows import read_rows
from worldmodel_v.alignment.verdict import Verdict, decide, judge

__all__ = ["Gain", "Rows", "Verdict", "decide", "judge", "read_rows"]
