package nbd.launcher;

import java.io.IOException;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.List;

/**
 * Sends the signals that this process gets on to its child, instead of dying of them.
 *
 * <p>The JDK's {@code sun.misc.Signal} is reached by reflection: what javac compiles for Java 8
 * does not see it, and a Java without it still launches, only deaf.
 */
final class SignalForwarder implements InvocationHandler {
  private static final String[] SIGNALS = {"TERM", "INT", "HUP", "USR1", "USR2"};

  private final List<String> early = new ArrayList<String>();
  private Process child;

  /** Signals are kept from now on, until there is a child. */
  void install() {
    try {
      Class<?> signal = Class.forName("sun.misc.Signal");
      Class<?> handler = Class.forName("sun.misc.SignalHandler");
      Object forwarder =
          Proxy.newProxyInstance(
              SignalForwarder.class.getClassLoader(), new Class<?>[] {handler}, this);
      Method handle = signal.getMethod("handle", signal, handler);
      for (String name : SIGNALS) {
        try {
          handle.invoke(null, signal.getConstructor(String.class).newInstance(name), forwarder);
        } catch (ReflectiveOperationException e) {
          // This Java keeps the signal for itself, or the system has none of that name.
        }
      }
    } catch (ReflectiveOperationException e) {
      // A Java without sun.misc.Signal.
    }
  }

  /** The child gets the signals that came so far, and all that follow. */
  synchronized void forwardTo(Process process) {
    child = process;
    for (String name : early) {
      send(name);
    }
  }

  /** Called by the JDK, on a new thread for each signal. */
  @Override
  public synchronized Object invoke(Object proxy, Method method, Object[] arguments) {
    if (method.getName().equals("handle")) {
      String name = arguments[0].toString().substring("SIG".length());
      if (child == null) {
        early.add(name);
      } else {
        send(name);
      }
    }
    return null;
  }

  private void send(String name) {
    if (name.equals("TERM")) {
      child.destroy();
      return;
    }
    try {
      // The shell's own kill: a small system may lack the program.
      new ProcessBuilder("/bin/sh", "-c", "kill -s " + name + " " + pidOf(child)).start();
    } catch (IOException e) {
      child.destroy();
    } catch (ReflectiveOperationException e) {
      child.destroy();
    }
  }

  private static Object pidOf(Process process) throws ReflectiveOperationException {
    try {
      return Process.class.getMethod("pid").invoke(process);
    } catch (NoSuchMethodException e) {
      // Java 8.
      Field pid = process.getClass().getDeclaredField("pid");
      pid.setAccessible(true);
      return pid.get(process);
    }
  }
}
