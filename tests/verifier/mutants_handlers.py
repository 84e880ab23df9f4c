"""Mutants of the rules about the handlers of disconnects and forwards that have completed: the same four for both."""

from chimney.ndis.buffers import net_buffer_list
from chimney.ndis.library import Library, MiniportHandle
from chimney.ndis.status import Status
from tests.verifier.mutation import mutant
from tests.verifier.shims import HostShim


def _register(rules, function, scenario):
    """Makes the mutants that err in ``function``, and registers them for the rules beginning with ``rules``."""

    def calls_nobody(self, head):
        """The completion is lost."""

    def calls_another(self, head):
        getattr(self.first.protocol, function)(head)

    def gives_another(self, head):
        getattr(self.protocol, function)(net_buffer_list(b""))

    def answers(self, head):
        getattr(HostShim, function)(self, head)
        return Status.SUCCESS

    class TellsNobody(MiniportHandle):
        pass

    class Astray(MiniportHandle):
        first = None

    class TellsAnother(Library):
        def __init__(self):
            self.first = None

        def handle(self, miniport, protocol, binding):
            made = Astray(miniport, protocol, binding)
            self.first = made.first = self.first or made
            return made

    class GivesAnotherList(MiniportHandle):
        pass

    class AnswersACompletion(HostShim):
        pass

    setattr(TellsNobody, function, calls_nobody)
    setattr(Astray, function, calls_another)
    setattr(GivesAnotherList, function, gives_another)
    setattr(AnswersACompletion, function, answers)
    mutant(f"{rules}.calls", scenario=scenario)(TellsNobody)
    mutant(f"{rules}.binding-context", scenario=scenario)(TellsAnother)
    mutant(f"{rules}.nbl", scenario=scenario)(GivesAnotherList)
    mutant(f"{rules}.void", scenario=scenario, side=None)(AnswersACompletion)


_register("disconnect.handler", "tcp_offload_disconnect_complete", "graceful-close")
_register("forward.handler", "tcp_offload_forward_complete", "many-forwards")
